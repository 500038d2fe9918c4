"""Lines of JSON with run and shard, where the settings want them and nowhere else."""

import io
import json
import logging

import pytest

from optirag_core.config.run import TrackingSettings
from optirag_core.errors import ConfigError
from ray_jobs.run_events import LOGGER, RunEvents, event

NAMES = {"run": "night", "run_id": "1" * 64}


def test_events_are_appended_to_a_file(tmp_path):
    file = tmp_path / "events.jsonl"
    for attempt in (1, 2):
        with RunEvents(str(file), **NAMES) as events:
            events.tell("run_begun", pairs=3)
            events.add([event("shard_begun", host="there", shard=0, attempt=attempt)])

    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(line["event"], line.get("attempt")) for line in lines] == [
        ("run_begun", None), ("shard_begun", 1), ("run_begun", None), ("shard_begun", 2),
    ]  # fmt: skip
    assert all(line | NAMES == line for line in lines)
    assert lines[1]["host"] == "there" and lines[0]["pairs"] == 3
    assert lines[0]["time"].endswith("+00:00")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_events_go_to_a_stream_as_they_are(stream, capsys, monkeypatch):
    for_people = logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(logging.getLogger(), "handlers", [for_people])
    with RunEvents(stream, **NAMES) as events:
        events.tell("run_begun")

    said = dict(zip(("stdout", "stderr"), capsys.readouterr(), strict=True))
    assert json.loads(said.pop(stream))["event"] == "run_begun"
    assert not any(said.values())
    assert for_people.stream.getvalue() == ""
    assert logging.StreamHandler not in map(type, logging.getLogger(LOGGER).handlers)


def test_without_a_target_nothing_is_written(capsys, caplog):
    with caplog.at_level(logging.INFO), RunEvents(None, **NAMES) as events:
        events.tell("run_begun")

    said = capsys.readouterr()
    assert (said.out, said.err, caplog.messages) == ("", "", [])


def test_a_driver_that_stops_tells_the_kind_of_its_error(tmp_path):
    file = tmp_path / "events.jsonl"
    with pytest.raises(KeyError), RunEvents(str(file), **NAMES):
        raise KeyError("somebody's id")

    [line] = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert (line["event"], line["error"]) == ("run_stopped", "KeyError")
    assert "somebody" not in str(line)


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"tracking\.events .*/none/events cannot be written to"):
        RunEvents(str(tmp_path / "none" / "events"))


def test_names_of_streams_stay_and_files_become_absolute():
    assert [TrackingSettings(events=name).events for name in ("stdout", "stderr", None)] == ["stdout", "stderr", None]
    assert TrackingSettings(events="events.jsonl").events.startswith("/")
