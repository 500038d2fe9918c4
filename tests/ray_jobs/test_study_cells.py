"""The order in which cells are measured: what is timed has the machine for itself."""

from types import SimpleNamespace

import pytest
import ray

from optirag_core.evaluation.reproduction.measurement import Measurement
from ray_jobs.reproduction import cells

pytestmark = pytest.mark.ray


class FakeStudy:
    """Of one part, and with one cell kept."""

    settings = SimpleNamespace(reproduce=SimpleNamespace(parts=("table4",)))

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def kept(self, recipe: str) -> Measurement | None:
        return nothing() if recipe == "kept" else None

    def keep(self, recipe: str, measurement: Measurement) -> None:
        self.events.append(f"{recipe} ends")


def nothing() -> Measurement:
    return Measurement.of_facts({"ms": 1.0})


def test_what_is_timed_starts_behind_all_others_and_one_after_the_other(monkeypatch):
    events: list[str] = []
    wanted = {  # name -> its cells, and whether they are timed
        "main": [("rates", True), ("main", False)], "none": [("kept", True), ("none", False)], "rates": [("k", True)],
    }  # fmt: skip

    def of_name(_, name):
        return (cells.Cell(each, each, None, None, {}, timed=timed) for each, timed in wanted[name])

    def started(cell):
        events.append(f"{cell.name} starts")
        return ray.put(nothing())

    monkeypatch.setattr(cells, "_cells", of_name)
    monkeypatch.setattr(cells, "_started", started)

    found = cells.measure(FakeStudy(events))

    assert set(found) == {"rates", "main", "kept", "none", "k"}
    assert sorted(events[:4]) == ["main ends", "main starts", "none ends", "none starts"]
    assert events[4:] == ["rates starts", "rates ends", "k starts", "k ends"]
