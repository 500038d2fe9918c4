"""The page and the JSON of a scoring run say the same, with text escaped."""

import json

from optirag_core.evaluation.run_page import NUMBERS, PAGE, run_page
from optirag_core.runs.attempts import Receipt
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.totals import Totals

FIGURES = {"rejects": {"unknown_item": 2}, "exits": {"3": 6, "5": 2}, "scorer_pairs": 8, "scorer_seconds": 4.0}


def test_numbers_by_hand():
    totals = Totals.of([Receipt(0, 8, 2, "", {}, FIGURES), Receipt(1, 8, 2, "", {}, FIGURES)])

    files = run_page("<night>", RunIdentity({"a.path": "<x>"}), totals, seconds=5.0, resumed=10)

    run, page = json.loads(files[NUMBERS]), files[PAGE].decode()
    assert (run["pairs"], run["scored"], run["rejected"], run["shards"]) == (20, 16, 4, 2)
    assert run["mean_exit_layer"] == (3 * 12 + 5 * 4) / 16
    assert run["pairs_per_scorer_second"] == 2.0
    assert "2.0</dd>" in page  # 10 pairs of the last call in 5 s
    assert "unknown_item" in page and "75.00&nbsp;%" in page
    assert "<night>" not in page and "&lt;night&gt;" in page


def test_says_what_prompts_had_to_leave_out():
    receipts = [Receipt(n, 8, 2, "", {}, FIGURES | {"dropped_entries": 600, "dropped_users": n}) for n in (1, 2)]
    files = run_page("night", RunIdentity({}), Totals.of(receipts), seconds=5.0, resumed=0)
    run = json.loads(files[NUMBERS])
    assert (run["dropped_entries"], run["dropped_users"]) == (1200, 3)
    assert "1,200 history entries and 3 similar users" in files[PAGE].decode()

    silent = run_page("night", RunIdentity({}), Totals.of([Receipt(0, 8, 2, "", {}, FIGURES)]), seconds=5.0, resumed=0)
    assert "0 history entries and 0 similar users" in silent[PAGE].decode()
