"""The engine on a finished run's own prompts, in turns with `transformers`: full depth, and the run's exit policy.

    python -m benchmarks.scoring --config FILE [--data DIR] --workspace DIR --out benchmarks/results/FILE.json
    python -m benchmarks.scoring ... --candidates 1 8 32        one row for each number of candidates of a user

All score the same prompts of test users with the same artifacts in one process; the requests are one call. FLOPs are
those that the engine counts from lengths and exit layers: what exits save of them, they should save of the time.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.hardware import commit, hardware, portable
from benchmarks.peers import padded, prefix_cached
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import requests_for
from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.loading import load_answer_ids, load_llm
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import open_assembler, open_heads, open_scorer
from optirag_core.prompting.assembly import Request, requests_from
from ray_jobs.command import parse
from tests.reference import PlainScorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--candidates", type=int, nargs="+", help="of each user; default: those of the run's requests")
    parser.add_argument("--pairs", type=int, default=400, help="of a row")
    parser.add_argument("--turns", type=int, default=5)
    given, rest = parser.parse_known_args()
    settings, _ = parse(rest)
    torch.set_num_threads(settings.actors.torch_threads)
    bench = Bench(settings)
    rows = []
    for candidates in given.candidates or (None,):
        rows.append(bench.row(candidates, given.pairs, given.turns))
        print(json.dumps(rows[-1], indent=1), flush=True)
    result = {
        "command": " ".join(["python -m benchmarks.scoring", *portable(sys.argv[1:])]),
        "commit": commit(),
        "hardware": hardware("cpu"),
        "seed": settings.seed,
        "policy": bench.policy,
        "turns": given.turns,
        "rows": rows,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


class Bench:
    """A finished run's LLM with its heads and its policy, and its test requests."""

    def __init__(self, settings: Settings) -> None:
        artifacts = open_artifacts(settings, *TRAINED)
        dataset = Dataset.load(artifacts["dataset"].path)
        self._requests = requests_from(requests_for(dataset.interactions, "test"))
        self._items = dataset.items["item_id"].to_pylist()
        self._model, tokenizer = load_llm(artifacts["llm"].path)
        self._answer_ids = load_answer_ids(artifacts["llm"].path)
        self._assembler, _ = open_assembler(settings, artifacts, tokenizer)
        self._heads, _ = open_heads(settings, artifacts)
        self._everything = ExitPolicy("none", settings.exit_policy.window, 0.0)
        self._full, self._exits = Scorer(self._model, self._heads, self._everything), open_scorer(settings, artifacts)

    @property
    def policy(self) -> dict[str, Any]:
        """The run's."""
        return vars(self._exits.policy) | {"layers": self._exits.exit_layers}

    def row(self, candidates: int | None, num_pairs: int, turns: int) -> dict[str, Any]:
        """Seconds and ratios on prompts of the first test users.

        Args:
            candidates: of each user, drawn behind the test pair's; None: as the requests have them.
            num_pairs: about as many.
        """
        groups = self._groups(candidates, num_pairs)
        pairs = sum(len(group.suffixes) for group in groups)
        seconds = _seconds(
            {
                "padded": partial(padded, self._model, groups, self._answer_ids),
                "prefix_cached": partial(prefix_cached, self._model, groups, self._answer_ids),
                "full depth": partial(self._full.score, groups),
                "exits": partial(self._exits.score, groups),
            },
            turns,
        )
        full, exits = self._full.score(groups), self._exits.score(groups)
        plain = PlainScorer(self._model, self._heads, self._everything).score(groups)
        flops, fewer = full.figures.cost.flops, exits.figures.cost.flops
        return {
            "candidates": candidates,
            "users": len(groups),
            "pairs": pairs,
            "prefix_tokens": statistics.mean(len(group.prefix) for group in groups),
            "suffix_tokens": statistics.mean(len(suffix) for group in groups for suffix in group.suffixes),
            "seconds": {name: statistics.median(each) for name, each in seconds.items()},
            "full_depth": {peer: _ratio(seconds[peer], seconds["full depth"]) for peer in ("padded", "prefix_cached")},
            "exits": {name: _ratio(seconds[name], seconds["exits"]) for name in seconds if name != "exits"},
            "exits_flops": flops / fewer if fewer else None,  # none is spent where no layer runs
            "mean_exit_layer": statistics.mean(pair.exit_layer for pair in _flat(exits.scores)),
            "largest_difference_of_score": max(
                abs(a.score - b.score) for a, b in zip(_flat(plain), _flat(full.scores), strict=True)
            ),
        }

    def _groups(self, candidates: int | None, num_pairs: int) -> list[UserGroup]:
        requests = self._requests[: num_pairs // (candidates or 1)]
        if candidates:
            drawn = random.Random(candidates)
            requests = [self._with_candidates(request, candidates, drawn) for request in requests]
        return [assembled.prompt.group for assembled in self._assembler.assemble(requests) if assembled.prompt]

    def _with_candidates(self, request: Request, number: int, drawn: random.Random) -> Request:
        asked = request.item_ids[0]
        others = [item_id for item_id in drawn.sample(self._items, number) if item_id != asked]
        return replace(request, item_ids=[asked, *others][:number])


def _seconds(calls: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Of each call in each turn but the first, which warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            with torch.inference_mode():
                call()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _flat(scores: Sequence[Sequence[PairScore]]) -> list[PairScore]:
    return [pair for pairs in scores for pair in pairs]


def _ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Median over the turns."""
    return statistics.median(before / after for before, after in zip(slower, faster, strict=True))


if __name__ == "__main__":
    main()
