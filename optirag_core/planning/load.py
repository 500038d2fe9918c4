"""What one scoring run puts on scorers, driver, object store, network and storage, from lengths and measured rates.

Shapes: U users, n candidates of each, P and S tokens of a prefix and of a candidate, N scorers.
"""

import math
from dataclasses import dataclass

from optirag_core.planning import measured
from optirag_core.planning.accelerators import HOUR_S
from optirag_core.runs.run import THREADS

TOKEN_BYTES = 4
REQUESTS_PER_SHARD = 7
"""Of S3: the shard put, asked for and read; its receipt looked for; scores, rejects and receipt put."""
REQUEST_S = 0.05
"""Of one small S3 request, as `runs.run.THREADS` takes it."""


@dataclass(frozen=True)
class Load:
    """One run."""

    users: float
    candidates: float  # n
    prefix_tokens: float  # P
    suffix_tokens: float  # S
    user_flops: float  # of a prompt and its candidates, at the exit policy's share of full depth
    scorer_flops_per_s: float
    pairs_per_shard: int

    @property
    def pairs(self) -> float:
        return self.users * self.candidates

    @property
    def shard_users(self) -> int:
        """Whole users: a shard is full with the one that reaches `pairs_per_shard`."""
        return math.ceil(self.pairs_per_shard / self.candidates)

    @property
    def num_shards(self) -> int:
        return math.ceil(self.users / self.shard_users)

    @property
    def pairs_per_scorer_second(self) -> float:
        """Of a scorer between its first and last shard."""
        return self.candidates * self.scorer_flops_per_s * measured.JOB_SHARE.value / self.user_flops

    @property
    def scorer_s(self) -> float:
        """Scorer seconds of all pairs."""
        return self.pairs / self.pairs_per_scorer_second

    @property
    def shard_s(self) -> float:
        return self.scorer_s / self.num_shards

    @property
    def prompt_bytes(self) -> float:
        """Of a user, on its way from a prompt builder to a scorer: token ids."""
        return TOKEN_BYTES * (self.prefix_tokens + self.candidates * self.suffix_tokens)

    def prompt_core_s(self, search_s: float) -> float:
        """Of one core, for a user's prompt: histories looked up, similar users searched for, tokens put together."""
        tokens = self.prefix_tokens + self.candidates * self.suffix_tokens
        return tokens / measured.TOKENS_PER_CORE_S.value + 1 / measured.LOOKUPS_PER_S.value + search_s

    @property
    def planning_s(self) -> float:
        """The driver reads the requests twice, cuts them, uploads the shards, and lists them to Ray."""
        of_shard = REQUEST_S / THREADS + measured.STREAM_S_PER_SHARD.value
        of_user = measured.PLAN_S_PER_USER.value + self.candidates * measured.PLAN_S_PER_PAIR.value
        return self.users * of_user + self.num_shards * of_shard

    @property
    def commit_s(self) -> float:
        return self.num_shards * measured.COMMIT_S_PER_SHARD.value

    @property
    def driver_gib(self) -> float:
        shards_mib = self.num_shards * measured.DRIVER_MIB_PER_SHARD.value
        users_mib = self.users * measured.DRIVER_BYTES_PER_USER.value / 2**20
        return (measured.DRIVER_MIB.value + shards_mib + users_mib) / 1024

    @property
    def s3_requests(self) -> float:
        return self.num_shards * REQUESTS_PER_SHARD

    @property
    def listing_s(self) -> float:
        """What a driver that takes over waits for: pages of 1,000 names, and every receipt that is there."""
        return self.num_shards * (REQUEST_S / 1000 + REQUEST_S / THREADS)


@dataclass(frozen=True)
class Nodes:
    """Nodes of a cluster, as far as they make a run longer than its scorer seconds."""

    losses_per_hour: float
    away_s: float  # of a lost one, until its substitute takes shards
    slow_share: float
    slow_factor: float

    def speed(self, shard_s: float) -> float:
        """Of a node against one that is always there and not slow.

        Slow ones do 1 / factor. Of each hour between losses the time away is gone, and half a shard.
        """
        even = 1 - self.slow_share + self.slow_share / self.slow_factor
        return even / (1 + self.losses_per_hour * (self.away_s + shard_s / 2) / HOUR_S)
