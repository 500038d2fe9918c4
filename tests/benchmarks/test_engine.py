"""The benchmark runs end to end on a tiny shape; its figures are judged where they are measured, not here."""

import json
import sys

import pytest

from benchmarks import engine

KEYS = {"peer", "n", "exits", "seconds", "peer_seconds", "ratio", "utilisation"}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "engine.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["engine", "--model", "tiny", "--threads", "1", "--out", str(path)])
        engine.main()
    return json.loads(path.read_text())


def test_the_file_says_where_it_comes_from(result):
    assert {"command", "hardware", "commit", "date", "seed", "gemm_gflops_per_s"} <= result.keys()


def test_every_peer_and_exit_pattern_has_a_row(result):
    rows = {(row["peer"], row["n"], row["exits"]) for row in result["rows"]}

    assert all(row.keys() >= KEYS for row in result["rows"])
    assert {("padded", 1, "none"), ("padded", 4, "none"), ("prefix_cached", 4, "none")} <= rows
    assert {(peer, 4, exits) for peer in ("padded", "prefix_cached") for exits in ("all@4", "half@4")} <= rows


def test_the_exits_are_those_asked_for(result):
    exited = {(row["n"], row["exits"]): row["exited"] for row in result["rows"]}

    assert (exited[4, "none"], exited[4, "all@4"], exited[4, "half@4"]) == (0, 4, 2)
