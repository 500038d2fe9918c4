"""The engine on a finished run's own requests, in turns: plain padded prompts, full depth, and the run's exit policy.

    python -m benchmarks.scoring --config FILE [--data DIR] --workspace DIR --out benchmarks/results/FILE.json

All score the same prompts with the same artifacts in one process; the requests are one call. FLOPs are those that the
engine counts from lengths and exit layers: what exits save of them, they should save of the time.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from benchmarks.hardware import commit, hardware
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import requests_for
from optirag_core.engine.groups import PairScore
from optirag_core.engine.loading import load_llm
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import open_assembler, open_heads, open_scorer
from optirag_core.prompting.assembly import requests_from
from ray_jobs.command import parse
from tests.reference import PlainScorer

NUM_REQUESTS, REPEATS = 400, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given, rest = parser.parse_known_args()
    settings, _ = parse(rest)
    torch.set_num_threads(settings.actors.torch_threads)
    artifacts = open_artifacts(settings, *TRAINED)
    interactions = Dataset.load(artifacts["dataset"].path).interactions
    model, tokenizer = load_llm(artifacts["llm"].path)
    assembler, _ = open_assembler(settings, artifacts, tokenizer)
    requests = requests_from(requests_for(interactions, "test").slice(0, NUM_REQUESTS))
    groups = [assembled.prompt.group for assembled in assembler.assemble(requests) if assembled.prompt]
    heads, _ = open_heads(settings, artifacts)
    everything = ExitPolicy("none", settings.exit_policy.window, 0.0)
    plain = PlainScorer(model, heads, everything)
    full, exits = Scorer(model, heads, everything), open_scorer(settings, artifacts)
    calls = {
        "plain": lambda: plain.score(groups),
        "full depth": lambda: full.score(groups).scores,
        "exits": lambda: exits.score(groups).scores,
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    scores: dict[str, list[list[PairScore]]] = {}
    for turn in range(REPEATS + 1):
        for name, score in calls.items():
            started = time.perf_counter()
            scores[name] = score()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)
    flat = {name: [pair for pairs in each for pair in pairs] for name, each in scores.items()}
    difference = max(abs(a.score - b.score) for a, b in zip(flat["plain"], flat["full depth"], strict=True))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    flops = {"full depth": full.score(groups).figures.cost.flops, "exits": exits.score(groups).figures.cost.flops}
    num_pairs = len(flat["exits"])
    result = {
        "command": "python -m benchmarks.scoring --config FILE --workspace DIR",
        "dataset": settings.dataset.source,
        "commit": commit(),
        "hardware": hardware("cpu"),
        "seed": settings.seed,
        "users": len(groups),
        "pairs": num_pairs,
        "tokens_per_pair": sum(len(g.prefix) + len(s) for g in groups for s in g.suffixes) / num_pairs,
        "policy": vars(exits.policy) | {"layers": exits.layers},
        "mean_exit_layer": statistics.mean(pair.exit_layer for pair in flat["exits"]),
        "seconds": medians,
        "pairs_per_s": {name: num_pairs / value for name, value in medians.items()},
        "full_depth_over_plain": _ratio(seconds["plain"], seconds["full depth"]),
        "exits_over_full_depth": {
            "seconds": _ratio(seconds["full depth"], seconds["exits"]),
            "flops": flops["full depth"] / flops["exits"] if flops["exits"] else None,
        },
        "largest_difference_of_score": difference,
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def _ratio(slower: list[float], faster: list[float]) -> float:
    """Median over the turns."""
    return statistics.median(before / after for before, after in zip(slower, faster, strict=True))


if __name__ == "__main__":
    main()
