"""The engine beside the plain scorer on a finished run's own requests, in turns.

    python -m benchmarks.scoring --workspace DIR --config FILE --out benchmarks/results/FILE.json

Both score the same prompts with the same artifacts and policy in one process; a shard of requests is one call.
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
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.loading import load_llm
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import open_assembler, open_scorer
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
    assembler, builder = open_assembler(settings, artifacts, tokenizer)
    requests = requests_from(requests_for(interactions, "test").slice(0, NUM_REQUESTS))
    groups = [assembled.prompt.group for assembled in assembler.assemble(requests) if assembled.prompt]
    engine = open_scorer(settings, artifacts)
    heads = ExitHeads(model, settings.exit_heads.layers, builder.answer_ids)
    heads.load(artifacts["exit_heads"].path)
    plain = PlainScorer(model, heads, engine.policy)
    calls = {"engine": lambda: engine.score(groups).scores, "plain": lambda: plain.score(groups)}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    scores: dict[str, list[list[PairScore]]] = {}
    for turn in range(REPEATS + 1):
        for name, score in calls.items():
            started = time.perf_counter()
            scores[name] = score()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)
    mine, others = ([pair for pairs in scores[name] for pair in pairs] for name in calls)
    difference = max(abs(a.score - b.score) for a, b in zip(mine, others, strict=True))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "command": "python -m benchmarks.scoring --config FILE --workspace DIR",
        "dataset": settings.dataset.source,
        "commit": commit(),
        "hardware": hardware("cpu"),
        "seed": settings.seed,
        "users": len(groups),
        "pairs": len(mine),
        "tokens_per_pair": sum(len(g.prefix) + len(s) for g in groups for s in g.suffixes) / len(mine),
        "seconds": medians,
        "pairs_per_s": {name: len(mine) / value for name, value in medians.items()},
        "ratio": statistics.median(p / e for e, p in zip(seconds["engine"], seconds["plain"], strict=True)),
        "largest_difference_of_score": difference,
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
