"""Evidence at size: seconds and memory to count interactions, and to look pairs up in the mapped files.

    python -m benchmarks.evidence --out benchmarks/results/evidence.json
    python -m benchmarks.evidence --interactions 2000000 --pairs 1000000

The committed result is of the second command, a tenth of the size.
Users have 20 interactions each, items 67 on average and one of 50,000 authors; one thread. Counting and looking up are
processes of their own; memory is the peak above the imported libraries and the inputs, which `input_mib` gives.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.hardware import commit, hardware
from optirag_core.data.schema import INTERACTIONS, PAIRS, TIMESTAMP
from optirag_core.evidence.evidence import Evidence

PER_USER, PER_ITEM, AUTHORS = 20, 67, 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=20_000_000)
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    result = {
        "command": f"python -m benchmarks.evidence --interactions {given.interactions} --pairs {given.pairs}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware("cpu"),
        "interactions": given.interactions,
        "pairs": given.pairs,
        "attributes": ["author"],
        "with_times": _measured(given, timed=True),
        "without_times": _measured(given, timed=False),
    }
    text = json.dumps(result, indent=2)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _measured(given: argparse.Namespace, *, timed: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counted, looked_up = _alone(_count, given, timed, folder), _alone(_look_up, given, timed, folder)
        return {
            "count": counted,
            "file_mib": sum(path.stat().st_size for path in folder.iterdir()) / 2**20,
            "look_up": looked_up | {"pairs_per_s": given.pairs / looked_up["seconds"]},
        }


def _alone(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Run in a process of its own, so that its peak is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _count(given: argparse.Namespace, timed: bool, folder: Path) -> dict[str, float]:
    table, items = _interactions(given.interactions, timed=timed)
    before = _peak_mib()
    started = time.perf_counter()
    Evidence.of(table, items, ["author"]).save(folder)
    seconds = time.perf_counter() - started
    input_mib = (table.nbytes + items.nbytes) / 2**20
    return {"seconds": seconds, "input_mib": input_mib, "peak_above_input_mib": _peak_mib() - before}


def _look_up(given: argparse.Namespace, timed: bool, folder: Path) -> dict[str, float]:
    chance = np.random.default_rng(1)
    users, items = given.interactions // PER_USER, given.interactions // PER_ITEM
    pairs = pa.table(
        {
            "user_id": _ids("user-", chance.integers(0, users, given.pairs)),
            "item_id": _ids("item-", chance.integers(0, items, given.pairs)),
            "as_of": _times(chance.integers(0, PER_USER, given.pairs)) if timed else pa.nulls(given.pairs, TIMESTAMP),
            "as_of_position": pa.nulls(given.pairs, pa.int32())
            if timed
            else pa.array(chance.integers(0, PER_USER, given.pairs), pa.int32()),
        },
        schema=PAIRS,
    )
    before = _peak_mib()
    started = time.perf_counter()
    features = Evidence.open(folder).features(pairs)
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "input_mib": pairs.nbytes / 2**20,
        "features_mib": features.nbytes / 2**20,
        "peak_above_input_mib": _peak_mib() - before,
    }


def _interactions(number: int, *, timed: bool) -> tuple[pa.Table, pa.Table]:
    chance = np.random.default_rng(0)
    places, num_items = np.arange(number), number // PER_ITEM
    stars = chance.integers(1, 6, number)
    columns = {
        "user_id": _ids("user-", places // PER_USER),
        "item_id": _ids("item-", chance.integers(0, num_items, number)),
        "rating": stars.astype(np.float32),
        "label": (stars > 3).astype(np.int8),
        "event_time": _times(places % PER_USER, places) if timed else pa.nulls(number, TIMESTAMP),
        "position": (places % PER_USER).astype(np.int32),
        "split": pa.array(["train"]).take(pa.array(np.zeros(number, np.int8))),
    }
    ids = _ids("item-", np.arange(num_items))
    items = pa.table({"item_id": ids, "title": ids, "author": _ids("author-", np.arange(num_items) % AUTHORS)})
    return pa.table(columns, schema=INTERACTIONS), items


def _times(days: np.ndarray, within: np.ndarray | int = 0) -> pa.Array:
    """Nearly all times differ, which is the largest case."""
    return pa.array(days * 86_400_000_000 + within).cast(TIMESTAMP)


def _ids(prefix: str, numbers: np.ndarray) -> pa.Array:
    distinct, places = np.unique(numbers, return_inverse=True)
    return pa.array([f"{prefix}{number:09}" for number in distinct.tolist()]).take(pa.array(places))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
