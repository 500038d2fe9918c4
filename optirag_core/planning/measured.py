"""What capacity rests on: rates and sizes that benchmarks of this repository measured, each with its file.

All of them are of two CPU cores; none is of a GPU. `tests/planning/test_measured.py` compares them with the files.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """A figure and where it stands in `benchmarks/results/`."""

    value: float
    file: str
    said: str  # what was measured

    @property
    def source(self) -> str:
        return f"benchmarks/results/{self.file}: {self.said}"


JOB_SHARE = Measured(0.979, "batch.json", "the job scores 97.9 % of the pairs per second of the bare engine")
RECEIPTS_PER_S = Measured(
    22.8, "batch.json", "22.8 receipts per second, driver and 4 actors with 0.05 s shards on the same two cores"
)
SHARD_OVERHEAD_S = Measured(0.0169, "batch.json", "16.9 ms of a scorer per shard beside its pairs")
SHARD_SPREAD = Measured(0.0198, "batch.json", "shards of 2,000 pairs take 13.24 s, give or take 2 %")
DRIVER_MIB_PER_SHARD = Measured(
    0.01176, "capacity.json", "the driver's memory grows by 12 KiB per shard, from 500 to 4,000 shards"
)
STREAM_S_PER_SHARD = Measured(
    1.862e-3, "capacity.json", "with 4,000 shards the first receipt comes 6.5 s later than with 500, 1.9 ms per shard"
)
DRIVER_MIB = Measured(668.6, "batch.json", "669 MiB of a driver with few shards")
TOKENS_PER_CORE_S = Measured(671_000, "batch.json", "170,757 prompt tokens are put together in 0.254 s")
LOOKUPS_PER_S = Measured(2231, "histories.json", "2,231 users' histories, 4 similar ones' and 20 items per second")
HISTORY_BYTES = Measured(
    21.3, "histories.json", "406 MiB of histories for 20 M interactions, 21.3 bytes of one, mapped by all actors"
)
USER_BYTES = Measured(
    92.0, "histories.json", "88 MiB of ids and profiles without fields for 1 M users, 92 bytes of one"
)
PREPARE_S_PER_USER = Measured(26.8e-6, "histories.json", "the files of 1 M users are written in 26.8 s")
FLAT_VECTORS_PER_S = Measured(73.2e6, "index-generated.json", "Flat reads 73 M vectors of width 64 a second")
IVF_VECTORS_PER_S = Measured(44.5e6, "index-generated.json", "IVF,Flat reads 45 M vectors a second")
PQ_VECTORS_PER_S = Measured(36.4e6, "index-generated.json", "IVF,PQ32 reads 36 M vectors a second")
FLAT_BYTES = Measured(260.0, "index-generated.json", "260 bytes of a user's vector of width 64")
IVF_BYTES = Measured(269.1, "index-generated.json", "269 bytes in IVF,Flat")
PQ_BYTES = Measured(45.1, "index-generated.json", "45 bytes in IVF,PQ32")
IVF_BUILD_S = Measured(9.96e-9, "index-generated.json", "IVF4096,Flat is made in 40.8 s: 10 ns per user and list")
PQ_BUILD_S = Measured(14.26e-9, "index-generated.json", "IVF4096,PQ32 is made in 58.4 s: 14 ns per user and list")
GRAPH_BYTES = Measured(
    404.0, "retriever.json", "training takes 7.52 GiB for 20 M interactions of 1 M users, 404 bytes of one"
)
EPOCH_S = Measured(30.1e-6, "retriever.json", "an epoch of 20 steps takes 602 s there, 30 us per interaction")
PLAN_S_PER_PAIR = Measured(0.5056e-6, "capacity.json", "100 M pairs of 2 M users are planned in 54.6 s")
PLAN_S_PER_USER = Measured(
    2.046e-6, "capacity.json", "20 M pairs of 20 M users in 51.0 s: 0.51 us per pair and 2.0 us per user"
)
DRIVER_BYTES_PER_USER = Measured(
    25.98, "capacity.json", "it takes 470 MiB for 2 M users and 916 MiB for 20 M: 26 bytes per user"
)
COMMIT_S_PER_SHARD = Measured(0.106e-3, "capacity.json", "50,000 shards are committed in 5.3 s on a local folder")
REQUEST_BYTES = Measured(6.52, "capacity.json", "6.5 bytes of a pair in requests, ids of 12 and 14 letters")
SCORE_BYTES = Measured(14.65, "capacity.json", "15 bytes of a pair in scores")
RECEIPT_BYTES = Measured(690.0, "capacity.json", "690 bytes of a receipt")
