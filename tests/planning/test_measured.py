"""The figures that plans rest on are those of the result files."""

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest

from optirag_core.planning import measured
from optirag_core.planning.measured import Measured

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def results():
    names = ("batch", "histories", "index-generated", "retriever", "capacity")
    return {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in names}


def expected(results):
    """Every figure, as the files have it."""
    batch, capacity = results["batch"], results["capacity"]
    overhead, sizes = batch["overhead"]["rows"][0], batch["size"]["sizes"]
    seconds = overhead["jobs"][0]["receipt_seconds"][:4]  # the last shard is not full
    histories = results["histories"]
    mib, users, edges = histories["file_mib"], histories["users"], histories["interactions"]
    flat, ivf, codes = results["index-generated"]["generated"]
    graph = results["retriever"]["size"][-1]
    hundred, users_alone = (capacity["plan"][name] for name in ("2000000 users x 50", "20000000 users x 1"))
    # a pairs + b users of the two: 1e8 a + 2e6 b, 2e7 a + 2e7 b
    hundred_s, alone_s = (sum(entry["seconds"].values()) for entry in (hundred, users_alone))
    per_user = (5 * alone_s - hundred_s) / (5 * 20e6 - 2e6)
    receipts = capacity["receipts"]["rows"][-1]
    few, many = capacity["stream"]["runs"]
    later_s = many["seconds"]["to_first_receipt"] - few["seconds"]["to_first_receipt"]
    return {
        "JOB_SHARE": overhead["ratio"],
        "RECEIPTS_PER_S": max(row["middle_shards_per_s"] for row in batch["actors"]["rows"]),
        "SHARD_OVERHEAD_S": batch["size"]["runs"][-1]["steady_ms_per_shard_beyond_sleep"] / 1e3,
        "SHARD_SPREAD": stdev(seconds) / fmean(seconds),
        "DRIVER_MIB": sizes[0]["driver_rss_peak_mib"],
        "DRIVER_MIB_PER_SHARD": capacity["stream"]["kib_per_shard"] / 1024,
        "STREAM_S_PER_SHARD": later_s / (many["shards"] - few["shards"]),
        "TOKENS_PER_CORE_S": overhead["tokens"] / overhead["build_seconds"],
        "LOOKUPS_PER_S": histories["now"]["requests_per_s"],
        "HISTORY_BYTES": (mib["history.arrow"] + mib["history_items.arrow"]) * 2**20 / edges,
        "USER_BYTES": sum(mib[f"{name}.arrow"] for name in ("history_users", "users", "retriever/users"))
        * 2**20
        / users,
        "PREPARE_S_PER_USER": histories["write_seconds"] / users,
        "FLAT_VECTORS_PER_S": flat["queries_per_s"] * 1e6,
        "IVF_VECTORS_PER_S": ivf["queries_per_s"] * 1e6 / 16,
        "PQ_VECTORS_PER_S": codes["queries_per_s"] * 1e6 / 16,
        "FLAT_BYTES": flat["bytes"] / 1e6,
        "IVF_BYTES": ivf["bytes"] / 1e6,
        "PQ_BYTES": codes["bytes"] / 1e6,
        "IVF_BUILD_S": ivf["build_seconds"] / 1e6 / 4096,
        "PQ_BUILD_S": codes["build_seconds"] / 1e6 / 4096,
        "GRAPH_BYTES": graph["peak_gib"] * 2**30 / graph["edges"],
        "EPOCH_S": graph["epoch_seconds"] / graph["edges"],
        "PLAN_S_PER_PAIR": (hundred_s - 2e6 * per_user) / 100e6,
        "PLAN_S_PER_USER": per_user,
        "DRIVER_BYTES_PER_USER": (users_alone["rss_peak_mib"] - hundred["rss_peak_mib"]) * 2**20 / 18e6,
        "COMMIT_S_PER_SHARD": receipts["ms_per_shard"]["commit"] / 1e3,
        "REQUEST_BYTES": hundred["request_bytes_per_pair"],
        "SCORE_BYTES": capacity["sizes"]["score_bytes_per_pair"],
        "RECEIPT_BYTES": capacity["sizes"]["receipt_bytes"],
    }


def test_every_figure_is_that_of_its_file(results):
    figures = {name: value for name, value in vars(measured).items() if isinstance(value, Measured)}
    found = expected(results)
    assert figures.keys() == found.keys()
    for name, figure in figures.items():
        assert figure.value == pytest.approx(found[name], rel=0.01), name
        assert (RESULTS / figure.file).is_file()
