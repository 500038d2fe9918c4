import io
import logging
import re
import time

import pytest

from ray_jobs import progress
from ray_jobs.progress import Progress, Reporter, ShownProgress, progress_shown


@pytest.fixture
def clock(monkeypatch):
    """Seconds of a clock that a test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_off_a_terminal_a_line_every_ten_seconds(clock, caplog):
    """Step 1 starts the clock: 2 and 3 take 5 s and 1,000 tokens each, so 200 tokens/s and 7 x 5 s left."""
    caplog.set_level(logging.INFO)
    shown = ShownProgress("llm", "step")
    for number in (1, 2, 3):
        shown.add([Progress(number, 10, {"loss": 1.0 / number}, tokens=1000)])
        clock[0] += 5.0
    shown.close()
    assert caplog.messages == ["llm: step 3 of 10, loss 0.3333, 200 tokens/s, 00:35 left"]


def test_a_validation_loss_stays_in_sight(clock, caplog):
    caplog.set_level(logging.INFO)
    shown = ShownProgress("retriever", "epoch")
    shown.add([Progress(1, 9, {"loss": 1.0, "validation_loss": 0.5}), Progress(2, 9, {"loss": 0.9})])
    clock[0] += 10.0
    shown.add([Progress(3, 9, {"loss": 0.8})])
    assert caplog.messages == ["retriever: epoch 3 of 9, loss 0.8000, validation_loss 0.5000, 01:00 left"]


def test_rates_begin_again_where_a_worker_went_back(clock, caplog):
    caplog.set_level(logging.INFO)
    shown = ShownProgress("llm", "step")
    shown.add([Progress(8, 10, {}, tokens=1000)])
    clock[0] += 2.0
    shown.add([Progress(4, 10, {}, tokens=1000)])
    clock[0] += 10.0
    shown.add([Progress(5, 10, {}, tokens=1000)])
    assert caplog.messages == ["llm: step 5 of 10, 100 tokens/s, 00:50 left"]


def test_a_bar_begins_where_a_resumed_training_does(clock, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    shown = ShownProgress("llm", "step")
    for number in (900, 901, 902):
        shown.add([Progress(number, 1000, {"loss": 0.5})])
        clock[0] += 1.0
        time.sleep(0.6)  # the bar has a clock of its own
    shown.close()
    last = terminal.getvalue().split("\r")[-1]
    assert "902/1000" in last
    assert "loss 0.5000" in last
    rate = float(re.search(r"([\d.]+)step/s", last)[1])
    assert 0.2 < rate < 20


@pytest.mark.ray
def test_every_point_reaches_the_tracker():
    """Most of 1,000 points come within one interval, and the last ones just before the end."""
    came = []
    with progress_shown("llm", "step", came.extend) as board:
        reporter = Reporter(board)
        for number in range(1, 1001):
            reporter(number, 2000, tokens=7, loss=1.0 / number, validation_loss=None)
        reporter.close()
    assert came == [Progress(number, 2000, {"loss": 1.0 / number}, 7) for number in range(1, 1001)]


def test_without_a_board_nothing_is_said():
    reporter = Reporter(None)
    reporter(1, 2, loss=1.0)
    reporter.close()
