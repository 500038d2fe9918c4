"""What a committed scoring run says of itself in its manifest: which pairs it was asked for, and what it did."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from optirag_core.errors import DataError

FILES = "requests.files."


@dataclass(frozen=True)
class ScoredRun:
    """Counts and cost of a whole run, also of pairs that have no label."""

    scored: int  # pairs
    rejects: Mapping[str, int]  # pairs by error code
    scorer_seconds: float  # summed over scorers
    pairs_per_scorer_second: float  # of all pairs that the scorers were given, however many have a label
    dropped_entries: int  # history entries left out because a prompt was too long
    dropped_users: int  # similar users, likewise

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Self:
        """
        Args:
            metrics: of the `scores` artifact (`optirag_core.runs.totals`).

        Raises:
            DataError: the seconds are no positive number.
        """
        seconds = metrics["scorer_seconds"]
        if not (math.isfinite(seconds) and seconds > 0.0):
            raise DataError(f"the run's scorer_seconds is {seconds}, expected a positive number: run score again")
        return cls(
            metrics["scored"],
            metrics["rejects"],
            seconds,
            metrics["pairs_per_scorer_second"],
            metrics.get("dropped_entries", 0),
            metrics.get("dropped_users", 0),
        )

    @property
    def rejected(self) -> int:
        """Pairs."""
        return sum(self.rejects.values())


def require_test_requests(fields: Mapping[str, Any]) -> None:
    """Only the test split's own requests may be compared with labels and predictors.

    They show nothing at or after what they ask. Requests of other origin may lack that moment: then a prompt shows a
    later test row with its rating, which no predictor sees.

    Args:
        fields: of the run's identity, the `config` of its manifest: dotted names.

    Raises:
        DataError: the run was asked for something else.
    """
    if fields.get("requests.split") == "test" and fields.get("requests.all_items_top_k") is None:
        return
    raise DataError(
        f"the scores are of {_origin(fields)}, expected the test split's own requests: others may show the "
        "model ratings that it is tested on; run score without requests.path and requests.all_items_top_k, then "
        "evaluate"
    )


def _origin(fields: Mapping[str, Any]) -> str:
    files = sorted(name.removeprefix(FILES) for name in fields if name.startswith(FILES))
    if files:
        origin = f"requests in {', '.join(files[:3])}{', ...' if files[3:] else ''}"
    elif "requests.users" in fields:
        origin = f"requests of {fields['requests.users']} users"
    else:
        origin = f"requests of split {fields.get('requests.split', 'unknown')}"
    top_k = fields.get("requests.all_items_top_k")
    return origin if top_k is None else f"{origin}, filled with the retriever's {top_k} best items"
