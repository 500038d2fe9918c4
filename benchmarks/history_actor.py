"""One prompt actor's data, opened in a process of its own by `benchmarks.histories`.

    python benchmarks/history_actor.py now|before FOLDER

It opens, looks up, prints a line; prints its memory once a line comes in; and ends with its input.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import torch

import optirag_core
from optirag_core.data.dataset import Dataset
from optirag_core.data.rows import Rows
from optirag_core.retrieval.index import UserIndex

REQUESTS, SIMILAR, CANDIDATES, LIMIT, SEARCHED = 20_000, 4, 20, 15, 64
MEMORY = {"rss": "Rss", "pss": "Pss", "private": r"Private_\w+", "anonymous": "Anonymous"}
"""Lines of the kernel's summary of a process's memory; private is what psutil calls USS."""

AS_OF = 2**40


def main() -> None:
    version, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    imported = _memory_mib()
    started = time.perf_counter()
    lookup, index = OPENERS[version](folder)
    opened = time.perf_counter()
    chance = np.random.default_rng(0)
    seconds = 0.0
    for _ in range(REQUESTS):
        target, *similar = [f"user-{user:09d}" for user in chance.integers(0, int(folder.name), 1 + SIMILAR)]
        candidates = [f"item-{item:07d}" for item in chance.integers(0, 300_000, CANDIDATES)]
        before = time.perf_counter()
        lookup(target, similar, candidates)
        seconds += time.perf_counter() - before
    index.similar_batch([f"user-{user:09d}" for user in range(SEARCHED)], SIMILAR)
    print(
        json.dumps(
            {"code": optirag_core.__file__, "open_seconds": opened - started, "requests_per_s": REQUESTS / seconds}
        ),
        flush=True,
    )
    sys.stdin.readline()
    print(json.dumps({name: value - imported[name] for name, value in _memory_mib().items()}), flush=True)
    sys.stdin.read()  # stay until all have been measured


def _open_now(folder: Path) -> tuple[Callable[..., None], UserIndex]:
    from optirag_core.data.histories import Histories

    histories, index = Histories.open(folder), UserIndex.load(folder / "retriever", folder / "retriever")
    users, items = Rows.open(folder, "user"), Rows.open(folder, "item")

    def lookup(target: str, similar: list[str], candidates: list[str]) -> None:
        past = histories.past(target, as_of=AS_OF, hide=set(candidates))
        shown = [histories.of_target(past, limit=LIMIT), histories.mean_of_target(past)]
        for user in similar:
            shown += [histories.of_similar(user, past, limit=LIMIT), histories.mean_of_similar(user, past)]
        _ = [users.get(user) for user in (target, *similar)], [item in items for item in candidates], target in index

    return lookup, index


def _open_before(folder: Path) -> tuple[Callable[..., None], UserIndex]:
    from optirag_core.prompting.history import Histories

    dataset = Dataset.load(folder)
    histories, index = Histories(dataset.interactions), UserIndex.load(folder / "retriever")
    users, items = Rows(dataset.users, "user_id"), Rows(dataset.items, "item_id")

    def lookup(target: str, similar: list[str], candidates: list[str]) -> None:
        histories.of_target(target, as_of=AS_OF, as_of_position=None, hide=set(candidates), limit=LIMIT)
        for user in similar:
            histories.of_similar(user, as_of=AS_OF, limit=LIMIT)
        _ = [users.get(user) for user in (target, *similar)], [item in items for item in candidates], target in index

    return lookup, index


OPENERS = {"now": _open_now, "before": _open_before}


def _memory_mib() -> dict[str, float]:
    pa.default_memory_pool().release_unused()
    lines = Path("/proc/self/smaps_rollup").read_text()
    sizes = {name: re.findall(rf"^{line}:\s+(\d+) kB", lines, re.MULTILINE) for name, line in MEMORY.items()}
    return {name: sum(map(int, found)) / 1024 for name, found in sizes.items()}


if __name__ == "__main__":
    main()
