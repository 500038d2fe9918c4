"""What a scoring run did, as one self-contained HTML page and the same as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optirag_core.evaluation.html_page import html_page
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.totals import Totals

TEMPLATE = "run.html.jinja"
PAGE, NUMBERS = "run.html", "run.json"
LEFT_OUT = ("dropped_entries", "dropped_users")
"""Sums over shards of what had no room in a prompt; a run that shortened none may lack them."""


def run_page(name: str, identity: RunIdentity, totals: Totals, *, seconds: float, resumed: int) -> dict[str, bytes]:
    """Render both files: name -> content.

    Args:
        name: the run's.
        seconds: of the call that finished the run.
        resumed: pairs that earlier calls had finished.
    """
    run = {
        "name": name,
        "run_id": identity.run_id,
        "pairs": totals.pairs,
        "shards": totals.shards,
        "seconds_of_last_call": seconds,
        "pairs_of_last_call": totals.pairs - resumed,
        **{name: totals.sums.get(name, 0) for name in LEFT_OUT},
        **totals.metrics(),
    }
    html = html_page(TEMPLATE, run=run, numbers=_numbers(run), shares=_shares(totals), fields=identity.fields)
    return {NUMBERS: json.dumps({**run, "fields": identity.fields}, indent=1).encode(), PAGE: html.encode()}


def _numbers(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    rate = run["pairs_of_last_call"] / run["seconds_of_last_call"] if run["seconds_of_last_call"] else 0.0
    return [
        ("pairs/s, whole job", f"{rate:,.1f}"),
        ("pairs/s in a scorer", f"{run['pairs_per_scorer_second']:,.1f}"),
        ("mean exit layer", f"{run['mean_exit_layer']:.2f}"),
        ("rejected", f"{100.0 * run['rejected'] / max(1, run['pairs']):.2f}\N{NO-BREAK SPACE}%"),
        ("shards", f"{run['shards']:,}"),
    ]


def _shares(totals: Totals) -> list[tuple[str, str, list[tuple[object, int, float]]]]:
    tables: list[tuple[str, str, Sequence[tuple[object, int]], int]] = [
        ("Where pairs stopped", "Exit layer", sorted(totals.exits.items()), totals.scored),
        ("Why pairs were rejected", "Code", totals.rejects.most_common(), totals.rejected),
    ]
    return [
        (title, column, [(name, count, count / whole) for name, count in rows])
        for title, column, rows, whole in tables
        if rows
    ]
