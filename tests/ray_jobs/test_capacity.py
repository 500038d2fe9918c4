"""`python -m ray_jobs.plan`: what it prints, and what it refuses."""

import re
import sys

import pytest

from optirag_core.artifacts import Workspace
from optirag_core.engine.certificate import Calibration
from optirag_core.planning.capacity import flops_share
from ray_jobs.plan import main
from tests.finished_run import changed

ASKED = ["--users", "100e6", "--candidates", "50", "--gpu", "a100"]


def printed(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["plan", *arguments])
    main()
    return capsys.readouterr().out


def test_a_run_of_5_billion_pairs(monkeypatch, capsys):
    out = printed(monkeypatch, capsys, *ASKED, "--hours", "12", "--price-per-gpu-hour", "4.1")

    assert out.startswith(
        "planned, not measured: 5,000,000,000 pairs, 100,000,000 users x 50 candidates; 6,738,415,616"
    )
    [gpus] = re.findall(r"^GPUs +([\d,]+) x A100 on [\d,]+ nodes of 8$", out, re.MULTILINE)
    hours, cost = re.findall(r"^cost +([\d,]+) GPU hours at 4\.1: ([\d,]+)$", out, re.MULTILINE)[0]
    number, paid, price = (int(text.replace(",", "")) for text in (gpus, hours, cost))
    # 5e9 / 204.1 / 3600 = 6,805 scorer hours, and what lost and slow nodes, start and commit take.
    assert 6805 < paid < 1.15 * 6805
    assert 6805 / 12 < number < 1.5 * 6805 / 12
    assert price == pytest.approx(4.1 * paid, abs=4)
    for name in ("object store", "network", "storage", "S3 requests", "cores for prompts", "driver", "retriever"):
        assert re.search(rf"^{name} +\d|^{name} +requests \d", out, re.MULTILINE), name
    assert re.search(r"^! +time to train the retriever ", out, re.MULTILINE)
    assumed = out.partition("Assumed:")[2]
    for file in ("batch.json", "histories.json", "index-generated.json", "retriever.json", "capacity.json"):
        assert file in assumed
    assert "measured on 2 CPU cores" in assumed


def test_hours_of_given_gpus_and_any_setting(monkeypatch, capsys):
    out = printed(monkeypatch, capsys, *ASKED, "--gpus", "2000", "--run.pairs_per_shard", "30000")

    assert re.search(r"^GPUs +2,000 x A100 on 250 nodes of 8$", out, re.MULTILINE)
    assert re.search(r"^shards +166,667 of 30,000 pairs", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*ASKED[:-1], "k80"], "ConfigError: there are no figures of accelerator type K80"),
        ([*ASKED, "--run.pairs_per_shard"], "ConfigError: expected pairs --section.key value"),
        ([*ASKED, "--hours", "0.1"], "ConfigError: planning, start and commit alone take"),
    ],
)
def test_what_cannot_be_planned_is_one_line(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        printed(monkeypatch, capsys, *arguments)
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.ray
def test_the_share_of_a_certified_policy_counts(finished_run):
    settings = changed(finished_run, exit_policy={"criterion": "calibrated", "uncertified": False})
    certified = Calibration.load(Workspace(settings.workspace).open("exit_policy").path).certified
    asked = changed(settings, plan={"flops_share": 0.25})

    assert flops_share(settings)[0] == certified.flops_share
    assert "mean exit layer" in flops_share(settings)[1]
    assert flops_share(asked) == (0.25, "plan.flops_share")
