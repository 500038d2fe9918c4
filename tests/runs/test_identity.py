"""A run's folder takes one run; another is refused with the name of what differs."""

import pytest

from optirag_core.errors import RunMismatch
from optirag_core.runs.identity import RunIdentity
from optirag_core.storage.local import LocalStorage

FIELDS = {"requests": {"files": {"a.parquet": "0" * 64}}, "exits": {"threshold": 0.01, "layers": [3, 4]}, "seed": 0}


def test_nested_values_have_dotted_names():
    assert RunIdentity.of(FIELDS).fields == {
        "requests.files.a.parquet": "0" * 64,
        "exits.threshold": 0.01,
        "exits.layers": [3, 4],
        "seed": 0,
    }


def test_the_same_fields_are_the_same_run(tmp_path):
    storage = LocalStorage(tmp_path)
    one, same = RunIdentity.of(FIELDS), RunIdentity.of(dict(reversed(FIELDS.items())))

    one.claim(storage, "scores/run")
    same.claim(storage, "scores/run")

    assert one.run_id == same.run_id


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"exits": {"threshold": 0.02, "layers": [3, 4]}}, "exits.threshold = 0.01, now it is 0.02"),
        ({"seed": None}, "seed = 0, now it is null"),
        ({"requests": {"files": {"a.parquet": "1" * 64}}}, "requests.files.a.parquet = 000000000000, now it is 1111"),
        ({"requests": {"files": {"b.parquet": "0" * 64}}}, "a.parquet = 000000000000, now it is not there"),
        ({"more": 1}, "more = not there, now it is 1"),
    ],
)
def test_another_run_is_refused_by_name(tmp_path, changed, message):
    storage = LocalStorage(tmp_path)
    RunIdentity.of(FIELDS).claim(storage, "scores/run")

    with pytest.raises(RunMismatch, match=message):
        RunIdentity.of(FIELDS | changed).claim(storage, "scores/run")
