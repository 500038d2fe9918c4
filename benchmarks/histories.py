"""Memory of what prompt actors look up, histories, profiles, titles and the user index: now and at an earlier commit.

    python -m benchmarks.histories --out benchmarks/results/histories.json
    python -m benchmarks.histories --users 10000 --before none

Every actor is a process of its own (`benchmarks.history_actor`). Its memory is that above the imported libraries, after
its lookups; `private` (USS) is what would be freed if it ended, `anonymous` what no other process can ever share. Pages
of mapped files are private to a lone actor and shared by two. A request looks up a target user, 4 similar users and 20
candidates.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.hardware import commit, hardware
from optirag_core.config.data import IndexSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import INTERACTIONS, TIMESTAMP
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.vectors import save_vectors

REPOSITORY = Path(__file__).resolve().parents[1]
BEFORE = "754def9"
"""The last commit whose prompt actors loaded tables."""
PER_USER, ITEMS, WIDTH = 20, 300_000, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--before", default=BEFORE, help="a commit, or none")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, code = Path(scratch) / str(given.users), Path(scratch) / "code"
        started = time.perf_counter()
        _write(folder, given.users)
        result = {
            "command": f"python -m benchmarks.histories --users {given.users} --before {given.before}",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "hardware": hardware("cpu"),
            "users": given.users,
            "items": ITEMS,
            "interactions": given.users * PER_USER,
            "vector_width": WIDTH,
            "write_seconds": time.perf_counter() - started,
            "file_mib": {
                str(path.relative_to(folder)): path.stat().st_size / 2**20 for path in sorted(folder.rglob("*.*"))
            },
            "now": _actors("now", folder, REPOSITORY),
        }
        if given.before != "none":
            _check_out(given.before, code)
            result["before"] = {"commit": given.before, **_actors("before", folder, code)}
    text = json.dumps(result, indent=2)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _actors(version: str, folder: Path, code: Path) -> dict[str, Any]:
    """One actor alone, then two at once."""
    [(figures, alone)] = _opened(version, folder, code, 1)
    two = [memory for _, memory in _opened(version, folder, code, 2)]
    return {**figures, "one_actor_mib": alone, "two_actors_mib": two}


def _opened(version: str, folder: Path, code: Path, number: int) -> list[tuple[dict[str, Any], dict[str, float]]]:
    environment = {**os.environ, "PYTHONPATH": f"{code}:{REPOSITORY}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "history_actor.py"), version, str(folder)]
    with ExitStack() as stack:
        actors, figures = [], []
        for _ in range(number):
            process = subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True)
            actors.append(stack.enter_context(process))
            figures.append(json.loads(process.stdout.readline()))
            if not figures[-1].pop("code").startswith(str(code)):
                raise AssertionError(f"the actor did not run the code in {code}")
        memory = []
        for process in actors:  # all are still open
            process.stdin.write("\n")
            process.stdin.flush()
            memory.append(json.loads(process.stdout.readline()))
        return list(zip(figures, memory, strict=True))


def _check_out(revision: str, folder: Path) -> None:
    folder.mkdir()
    command = ["git", "-C", str(REPOSITORY), "archive", revision, "optirag_core"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as git, tarfile.open(fileobj=git.stdout, mode="r|") as files:
        files.extractall(folder, filter="data")


def _write(folder: Path, num_users: int) -> None:
    """A data set and a retriever's index, in the files of both versions."""
    (folder / "retriever").mkdir(parents=True)
    user_ids, item_ids = _ids("user-", num_users, 9), _ids("item-", ITEMS, 7)
    chance = np.random.default_rng(0)
    places = np.arange(num_users * PER_USER)
    columns = {
        "user_id": user_ids.take(pa.array(places // PER_USER)),
        "item_id": item_ids.take(pa.array(chance.integers(0, ITEMS, len(places)))),
        "rating": chance.integers(1, 6, len(places)).astype(np.float32),
        "label": np.ones(len(places), np.int8),
        "event_time": pa.array(places * 1_000_000).cast(TIMESTAMP),
        "position": (places % PER_USER).astype(np.int32),
        "split": pa.array(["train", "test"]).take(pa.array((places % PER_USER == PER_USER - 1).astype(np.int8))),
    }
    users = pa.table({"user_id": user_ids, "joined": pa.repeat("2011-11-11", num_users)})
    items = pa.table({"item_id": item_ids, "title": _ids("A title of usual length, number ", ITEMS, 7)})
    Dataset(pa.table(columns, schema=INTERACTIONS), users, items, {}).save(folder)
    vectors = torch.nn.functional.normalize(torch.randn(num_users, WIDTH, generator=torch.Generator().manual_seed(0)))
    save_vectors(folder / "retriever", "user", user_ids, vectors)
    UserIndex.build(user_ids, vectors, IndexSettings()).save(folder / "retriever")
    pq.write_table(pa.table({"user_id": user_ids}), folder / "retriever" / "users.parquet", write_page_checksum=True)
    os.sync()  # pages that are not on disk yet would count as written by whoever maps them


def _ids(prefix: str, number: int, digits: int) -> pa.Array:
    return pa.array(np.char.add(prefix, np.char.zfill(np.arange(number).astype(str), digits)).tolist(), pa.string())


if __name__ == "__main__":
    main()
