"""Pairs per second over the whole path, from user ids to scores, measured live; and how long similar users take.

All are asked for the same in turns, round after round, so that a machine that slows down slows all of them; the first
round is not counted. Figures are medians over rounds.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.engine.scorer import Scorer
from optirag_core.errors import DataError
from optirag_core.evaluation.reproduction.measurement import Answer, Measurement
from optirag_core.inference.prompts import assembled_prompts, groups_of
from optirag_core.prompting.assembly import PromptAssembler


@dataclass(frozen=True)
class System:
    """One way from requests to scores."""

    assembler: PromptAssembler
    scorer: Scorer


def time_paths(paths: Mapping[str, System], requests: pa.Table, *, rounds: int) -> Measurement:
    """Score the same requests on every path.

    Args:
        requests: `REQUESTS` with their `labels`.

    Returns:
        The live scores and exit layers by path, and as facts by path: `pairs_per_s` with one stage after the other,
        `prompt_ms` (similar users, histories, tokens) and `scoring_ms` of a pair, and `tokens` of a pair, a prefix
        counted once.

    Raises:
        DataError: a path cannot score all of their pairs.
    """
    num_pairs = pc.sum(pc.list_value_length(requests["item_ids"])).as_py()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    answers: dict[str, Answer] = {}
    facts: dict[str, dict[str, float]] = {}
    for _ in range(rounds + 1):
        for name, path in paths.items():
            started = time.perf_counter()
            groups = groups_of(assembled_prompts(path.assembler, requests))
            assembled = time.perf_counter()
            scored = path.scorer.score(groups)
            seconds[name].append((assembled - started, time.perf_counter() - assembled))
            pairs = [pair for group in scored.scores for pair in group]
            if len(pairs) != num_pairs:
                raise DataError(
                    f"{name}: {len(pairs):,} of {num_pairs:,} pairs fit into prompts, and rates are of the same pairs: "
                    "raise prompt.max_tokens"
                )
            layers = np.array([pair.exit_layer for pair in pairs], dtype=np.int16)
            answers[name] = Answer(np.array([pair.score for pair in pairs]), layers)
            tokens = sum(len(group.prefix) + sum(map(len, group.suffixes)) for group in groups)
            facts[name] = {"tokens": tokens / len(pairs)}
    users = np.repeat(requests["user_id"].to_numpy(), [len(each) for each in requests["item_ids"].to_pylist()])
    items, labels = (pc.list_flatten(requests[name]).to_numpy() for name in ("item_ids", "labels"))
    for name in paths:
        prompt_s, scoring_s = (statistics.median(each) for each in zip(*seconds[name][1:], strict=True))
        facts[name] |= {
            "pairs_per_s": len(users) / (prompt_s + scoring_s),
            "prompt_ms": 1e3 * prompt_s / len(users),
            "scoring_ms": 1e3 * scoring_s / len(users),
        }
    return Measurement(users, items, labels, answers, facts)


def time_retrieval(
    methods: Mapping[str, Callable[[Sequence[str]], object]], user_ids: Sequence[str], *, rounds: int
) -> dict[str, float]:
    """Milliseconds per user that each method takes to find similar users.

    Args:
        methods: name -> what finds them for a batch of users.
    """
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds + 1):
        for name, method in methods.items():
            started = time.perf_counter()
            method(user_ids)
            seconds[name].append(time.perf_counter() - started)
    return {name: 1e3 * float(np.median(each[1:])) / len(user_ids) for name, each in seconds.items()}
