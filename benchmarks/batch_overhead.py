"""The whole batch job on one scorer actor beside the bare engine on the same shards, in turns."""

import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.stub_job import receipt_times, steady_pairs, steady_seconds
from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import REQUESTS
from optirag_core.engine.groups import UserGroup
from optirag_core.engine.loading import load_tokenizer
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import open_assembler, open_scorer
from optirag_core.inference.prompts import assembled_prompts, groups_of
from optirag_core.runs.plan import ShardPlan, plan_shards
from ray_jobs.pipeline import TRAINING
from ray_jobs.score import score
from ray_jobs.session import ray_session
from ray_jobs.shard_stages import open_run


@dataclass(frozen=True)
class OverheadWork:
    """The model, the requests and how often."""

    hidden_size: int
    num_layers: int
    users: int
    ratings_per_user: float
    candidates: tuple[int, int]  # of a user: at least, at most
    pairs_per_shard: int
    max_history: int
    turns: Mapping[int, int]  # threads of torch -> jobs
    seed: int = 0


def run_overhead(work: OverheadWork) -> dict[str, Any]:
    """Bare, job, bare, job, bare: every job is judged by the bare runs before and after it."""
    with tempfile.TemporaryDirectory(prefix="optirag-") as folder:
        settings = _prepared(work, Path(folder))
        rows = [_row(settings, threads, turns, Path(folder)) for threads, turns in work.turns.items()]
    return {"work": asdict(work), "rows": rows}


class Bare:
    """The engine in this process, on the shards' prompts."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        artifacts = open_artifacts(settings, *TRAINED)
        assembler, _ = open_assembler(settings, artifacts, load_tokenizer(artifacts["llm"].path))
        requests = pq.read_table(settings.requests.path)
        self.plan = plan_shards([requests], settings.run.pairs_per_shard, folder / "shards")
        started = time.perf_counter()
        self.shards = [
            groups_of(assembled_prompts(assembler, pq.read_table(folder / shard.file))) for shard in self.plan.shards
        ]
        self.build_seconds = time.perf_counter() - started
        self._scorer = open_scorer(settings, artifacts)

    def run(self) -> list[float]:
        """Seconds of each shard."""
        return [self._seconds(groups) for groups in self.shards]

    @property
    def tokens(self) -> int:
        return sum(len(g.prefix) + sum(map(len, g.suffixes)) for groups in self.shards for g in groups)

    def _seconds(self, groups: list[UserGroup]) -> float:
        started = time.perf_counter()
        self._scorer.score(groups)
        return time.perf_counter() - started


def _row(settings: Settings, threads: int, turns: int, folder: Path) -> dict[str, Any]:
    """The bare engine and the job, both with this number of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    bare = Bare(settings, folder)
    bares, jobs = [bare.run()], []
    for turn in range(turns):
        jobs.append(_job(settings, threads, turn, bare.plan))
        bares.append(bare.run())
        print(json.dumps({"threads": threads, "bare": bares[-2:], "job": jobs[-1]}), flush=True)
    torch.set_num_threads(before)
    shards = bare.plan.shards
    later_pairs = sum(shard.pairs for shard in shards[1:])
    rates = [later_pairs / sum(seconds[1:]) for seconds in bares]
    whole = [bare.plan.pairs / sum(seconds) for seconds in bares]
    neighbours = list(itertools.pairwise(zip(rates, whole, strict=True)))
    ratios = [2 * job["steady_pairs_per_s"] / (a[0] + b[0]) for job, (a, b) in zip(jobs, neighbours, strict=True)]
    whole_ratios = [2 * job["whole_pairs_per_s"] / (a[1] + b[1]) for job, (a, b) in zip(jobs, neighbours, strict=True)]
    return {
        "threads": threads,
        "shards": len(shards),
        "pairs": bare.plan.pairs,
        "tokens": bare.tokens,
        "build_seconds": bare.build_seconds,
        "bare_seconds_per_shard": bares,
        "bare_steady_pairs_per_s": rates,
        "bare_spread": max(rates) / min(rates) - 1,  # beyond a tenth, others were at the machine: repeat
        "jobs": jobs,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "whole_ratio": statistics.median(whole_ratios),
        "whole_ratios": whole_ratios,
    }


def _job(settings: Settings, threads: int, turn: int, plan: ShardPlan) -> dict[str, Any]:
    """`ray_jobs.score.score` from its call to its commit; steady: from the first receipt to the last."""
    name = f"threads-{threads}-{turn}"
    run = settings.run.model_copy(update={"name": name})
    actors = settings.actors.model_copy(update={"torch_threads": threads})
    settings = settings.model_copy(update={"run": run, "actors": actors})
    started = time.perf_counter()
    manifest = score(settings)
    seconds = time.perf_counter() - started
    run = open_run(settings, name)
    if run.plan().digest != plan.digest:
        raise RuntimeError(f"run {name} has other shards than the bare engine")
    times = receipt_times(run)
    receipts = run.receipts(plan)
    in_scorer = sum(receipts[number].counts["scorer_seconds"] for number in list(times)[1:])
    steady = steady_seconds(times)
    return {
        "committed_pairs": manifest["metrics"]["scored"],
        "rejected_pairs": manifest["metrics"]["rejected"],
        "whole_seconds": seconds,
        "steady_seconds": steady,
        "receipt_seconds": np.diff([*times.values()]).tolist(),
        "share_in_scorer": in_scorer / steady,  # of the actor's time, the engine's own
        "steady_pairs_per_s": steady_pairs(plan, times) / steady,
        "whole_pairs_per_s": plan.pairs / seconds,
    }


def _prepared(work: OverheadWork, folder: Path) -> Settings:
    """Settings of a workspace with everything that scoring needs, and requests."""
    settings = settings_from(
        {
            "workspace": str(folder / "workspace"),
            "seed": work.seed,
            "dataset": {
                "source": "synthetic",
                "like_threshold": 5,
                "split": dict.fromkeys(("tune_share", "validation_share", "test_share"), 0.05),  # training is not timed
                "synthetic": {
                    "num_users": work.users, "num_books": 400, "mean_ratings_per_user": work.ratings_per_user,
                },
            },
            "retriever": {"max_epochs": 2},
            "prompt": {
                "template": "books", "max_history": work.max_history, "max_similar_history": work.max_history,
            },
            "llm": {
                "scratch": {
                    "shape": {
                        "hidden_size": work.hidden_size, "intermediate_size": work.hidden_size * 8 // 3,
                        "num_layers": work.num_layers, "num_heads": work.hidden_size // 32, "vocab_size": 1024,
                    },
                    "max_steps": 3,  # what the LLM answers does not matter here
                },
            },
            "exit_heads": {"layers": [work.num_layers - 1], "epochs": 1},
            "exit_policy": {"criterion": "none"},
            "requests": {"path": str(folder / "requests.parquet")},
            "run": {"pairs_per_shard": work.pairs_per_shard},
            "training": {name: {"num_workers": 0} for name in ("retriever", "llm", "exit_heads")},
        }
    )  # fmt: skip
    with ray_session(settings.ray):
        for stage in TRAINING:
            stage(settings)
    dataset = Dataset.load(open_artifacts(settings, "dataset")["dataset"].path)
    pq.write_table(_requests(dataset, work), folder / "requests.parquet")
    return settings


def _requests(dataset: Dataset, work: OverheadWork) -> pa.Table:
    rng, least, most = np.random.default_rng(work.seed), *work.candidates
    items = np.array(dataset.items["item_id"].to_pylist())
    rows = [
        {"user_id": user, "item_ids": rng.choice(items, rng.integers(least, most + 1), replace=False).tolist()}
        for user in dataset.users["user_id"].to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=REQUESTS)
