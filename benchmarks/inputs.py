"""Reading a run's input: pairs per second and memory, for rows in order and rows that must be grouped.

    python -m benchmarks.inputs --out benchmarks/results/FILE.json
    python -m benchmarks.inputs --pairs 10000000

Each input is verified and streamed in a process of its own, three times; the median counts. Every stream must hold all
pairs.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.hardware import commit, hardware
from optirag_core.config.run import StorageSettings
from optirag_core.data.dataset import write_table
from optirag_core.runs.requests import grouped, open_requests

PAIRS_PER_USER = 50
INPUTS = ("requests", "pairs clustered", "pairs in random order")
REPEATS = 3
FILE = "requests.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:  # a process for each task
        inputs = {}
        for name in INPUTS:
            with tempfile.TemporaryDirectory() as folder:
                pool.apply(_write, (name, given.pairs, Path(folder)))
                inputs[name] = pool.apply(_measure, (name, given.pairs, Path(folder)))
    result = {
        "command": f"python -m benchmarks.inputs --pairs {given.pairs}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware("cpu"),
        "pairs": given.pairs,
        "users": given.pairs // PAIRS_PER_USER,
        "inputs": inputs,
    }
    text = json.dumps(result, indent=2)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _write(name: str, num_pairs: int, folder: Path) -> None:
    write_table(_table(name, num_pairs), folder / FILE)


def _measure(name: str, num_pairs: int, folder: Path) -> dict[str, float]:
    seconds, before = [], _peak_mib()
    for _ in range(REPEATS):
        started = time.perf_counter()
        files = open_requests(str(folder / FILE), StorageSettings(), folder)
        streamed = sum(pc.sum(pc.list_value_length(table["item_ids"])).as_py() for table in grouped(files, folder))
        seconds.append(time.perf_counter() - started)
        if streamed != num_pairs or files.clustered == ("random" in name):
            raise AssertionError(f"{name}: {streamed:,} of {num_pairs:,} pairs, clustered {files.clustered}")
    return {
        "file_mib": round((folder / FILE).stat().st_size / 2**20, 1),
        "rows_mib": round(files.num_bytes / 2**20, 1),
        "pairs_per_second": round(num_pairs / statistics.median(seconds)),
        "seconds": [round(value, 3) for value in seconds],
        "memory_mib": round(_peak_mib() - before, 1),  # above the imported libraries
    }


def _table(name: str, num_pairs: int) -> pa.Table:
    chance = np.random.default_rng(0)
    numbers = np.arange(num_pairs)
    users = chance.permutation(numbers) // PAIRS_PER_USER if "random" in name else numbers // PAIRS_PER_USER
    user_ids = pc.binary_join_element_wise("user-", pa.array(users).cast(pa.string()), "")
    items = pa.array(chance.integers(0, 100_000, num_pairs)).cast(pa.string())
    if name == "requests":
        offsets = pa.array(np.arange(0, num_pairs + 1, PAIRS_PER_USER, dtype=np.int32))
        first = pa.array(numbers[::PAIRS_PER_USER])
        return pa.table({"user_id": user_ids.take(first), "item_ids": pa.ListArray.from_arrays(offsets, items)})
    return pa.table({"user_id": user_ids, "item_id": items})


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
