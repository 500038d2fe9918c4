"""Do answers depend on what else is in the batch? Top-10 lists of users scored alone and among others, in two modes.

    python -m benchmarks.composition --config FILE [--data DIR] --workspace DIR --out benchmarks/results/FILE.json

A finished run's artifacts and exit policy score candidates of test users: first every user alone, then all of them in
each of several compositions. A composition shuffles the users and lets them into the engine in arrivals of random size,
with a step of the engine between two arrivals, as an endpoint does. A list is one user in one composition, compared
with the same user alone; equal scores keep the order asked. The modes take turns within each composition.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.hardware import commit, hardware, portable
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import requests_for
from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.loading import load_tokenizer
from optirag_core.engine.scorer import Scorer
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import open_assembler, open_scorer
from optirag_core.prompting.assembly import requests_from
from ray_jobs.command import parse

MODES = {"default": False, "deterministic": True}
TOP = 10
Scores = list[list[PairScore]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--candidates", type=int, default=20, help="of each user")
    parser.add_argument("--compositions", type=int, default=20)
    parser.add_argument("--most", type=int, default=16, help="users of one arrival, at most")
    given, rest = parser.parse_known_args()
    settings, _ = parse(rest)
    torch.set_num_threads(settings.actors.torch_threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    groups, scorers = opened(settings, given.users, given.candidates, device)
    result = {
        "command": " ".join(["python -m benchmarks.composition", *portable(sys.argv[1:])]),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "hardware": hardware(device),
        "seed": settings.seed,
        "policy": vars(scorers["default"].policy) | {"layers": scorers["default"].exit_layers},
        "users": len(groups),
        "candidates": given.candidates,
        "compositions": given.compositions,
        **compared(scorers, groups, given.compositions, given.most, seed=settings.seed),
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def opened(settings: Settings, users: int, candidates: int, device: str) -> tuple[list[UserGroup], dict[str, Scorer]]:
    """Prompts of test users, drawn with the seed, and a scorer for each mode."""
    artifacts = open_artifacts(settings, *TRAINED)
    dataset = Dataset.load(artifacts["dataset"].path)
    requests, items = requests_from(requests_for(dataset.interactions, "test")), dataset.items["item_id"].to_pylist()
    drawn = random.Random(settings.seed)
    chosen = drawn.sample(requests, min(users, len(requests)))
    asked = [replace(request, item_ids=drawn.sample(items, candidates)) for request in chosen]
    assembler, _ = open_assembler(settings, artifacts, load_tokenizer(artifacts["llm"].path))
    groups = [assembled.prompt.group for assembled in assembler.assemble(asked) if assembled.prompt]
    engines = {name: settings.engine.model_copy(update={"deterministic": fixed}) for name, fixed in MODES.items()}
    scorers = {
        name: open_scorer(settings.model_copy(update={"engine": engine}), artifacts, device=device)
        for name, engine in engines.items()
    }
    return groups, scorers


def compared(
    scorers: Mapping[str, Scorer], groups: Sequence[UserGroup], compositions: int, most: int, *, seed: int
) -> dict[str, Any]:
    """What changes with the composition by mode, and the deterministic mode's time over the default one's.

    Args:
        most: users of one arrival, at most.
    """
    alone = {name: arrived(scorer, groups, [[user] for user in range(len(groups))]) for name, scorer in scorers.items()}
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in scorers}
    for number in range(compositions):
        arrivals = composition(len(groups), most, random.Random(f"{seed} {number}"))
        for name, scorer in scorers.items():
            started = time.perf_counter()
            scores = arrived(scorer, groups, arrivals, overlap=True)
            figures[name].append(changes(alone[name], scores) | {"seconds": time.perf_counter() - started})
        print({name: each[-1] for name, each in figures.items()}, flush=True)
    ratios = [slow["seconds"] / fast["seconds"] for slow, fast in zip(*reversed(figures.values()), strict=True)]
    between = changes(*alone.values())
    return {
        "modes": {name: totals(each) for name, each in figures.items()},
        "deterministic_seconds_over_default": {
            "median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)
        },
        "largest_difference_between_modes": between["largest_difference"],
    }  # fmt: skip


def composition(num_users: int, most: int, drawn: random.Random) -> list[list[int]]:
    """All users in a random order, in arrivals of 1 to `most`."""
    users, arrivals = drawn.sample(range(num_users), num_users), []
    while users:
        size = drawn.randint(1, most)
        arrivals.append(users[:size])
        users = users[size:]
    return arrivals


def arrived(
    scorer: Scorer, groups: Sequence[UserGroup], arrivals: Sequence[Sequence[int]], *, overlap: bool = False
) -> Scores:
    """The scores of all groups, in their order.

    Args:
        overlap: one step between two arrivals; else each arrival waits until the one before is scored.
    """
    users, scores = {}, {}
    for arrival in arrivals:
        users |= zip(scorer.add([groups[user] for user in arrival]), arrival, strict=True)
        scores |= {users[group.number]: group.scores for group in scorer.step()}
        while not overlap and not scorer.is_finished:
            scores |= {users[group.number]: group.scores for group in scorer.step()}
    while not scorer.is_finished:
        scores |= {users[group.number]: group.scores for group in scorer.step()}
    return [scores[user] for user in range(len(groups))]


def changes(before: Scores, after: Scores) -> dict[str, Any]:
    """How two scorings of the same groups differ."""
    lists = [(top(one), top(other)) for one, other in zip(before, after, strict=True)]
    pairs = [both for one, other in zip(before, after, strict=True) for both in zip(one, other, strict=True)]
    return {
        "lists": len(lists),
        "lists_changed": sum(one != other for one, other in lists),
        "lists_changed_as_sets": sum(set(one) != set(other) for one, other in lists),
        "pairs": len(pairs),
        "scores_changed": sum(one.score != other.score for one, other in pairs),
        "exit_layers_changed": sum(one.exit_layer != other.exit_layer for one, other in pairs),
        "largest_difference": max((abs(one.score - other.score) for one, other in pairs), default=0.0),
    }


def top(scores: Sequence[PairScore]) -> list[int]:
    """Places of the best candidates, the best first."""
    return sorted(range(len(scores)), key=lambda place: -scores[place].score)[:TOP]


def totals(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of all compositions."""
    return {name: (max if name == "largest_difference" else sum)(each[name] for each in figures) for name in figures[0]}


if __name__ == "__main__":
    main()
