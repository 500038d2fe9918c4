"""The main job on real input: generated data, own tables, and publishers' files where they are at hand."""

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from optirag_core.artifacts import MADE_BY, Workspace
from optirag_core.config.llm import PretrainedSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import SCORES
from optirag_core.evaluation.sentences import signed
from optirag_core.runs.reader import read_artifact, score_files
from optirag_core.training.pretrained import weights_digest
from optirag_core.training.tokenizer import train_tokenizer
from ray_jobs.command import parse
from ray_jobs.evaluate import evaluate
from ray_jobs.pipeline import STAGES, pipeline
from ray_jobs.prepare_data import prepare_data
from tests.conftest import tiny_llama
from tests.finished_run import NUM_LAYERS, changed, tiny_settings
from tests.test_readme import JOBS

pytestmark = pytest.mark.ray


def test_every_test_pair_is_scored_once(finished_run):
    workspace = Workspace(finished_run.workspace)
    scores = read_artifact(workspace.open("scores"))
    rejects = read_artifact(workspace.open("scores"), "rejects")
    interactions = Dataset.load(workspace.open("dataset").path).interactions

    asked = {(row["user_id"], row["item_id"]) for row in interactions.to_pylist() if row["split"] == "test"}
    answered = list(zip(scores["user_id"].to_pylist(), scores["item_id"].to_pylist(), strict=True))

    assert scores.schema.equals(SCORES)
    assert len(answered) == len(asked) > 100
    assert set(answered) == asked
    assert len(rejects) == 0
    assert all(0.0 <= score <= 1.0 for score in scores["score"].to_pylist())
    assert set(scores["exit_layer"].to_pylist()) <= {3, 4, NUM_LAYERS}


def test_the_papers_form_runs_on_the_same_llm(own_workspace):
    """No evidence in the heads and the threshold of algorithm 2: the LM's own head stays as it is."""
    by_hand = {"criterion": "ratio", "threshold": 0.5, "uncertified": True}
    settings = changed(own_workspace, evidence={"heads": False}, exit_policy=by_hand)

    pipeline(settings)

    summary = json.loads((Workspace(settings.workspace).open("reports").path / "summary.json").read_text())
    assert (summary["worth"]["both"], summary["worth"]["over_evidence"]) == (None, None)
    assert "0" not in summary["exits"]["histogram"]
    copies = Workspace(settings.workspace).open("exit_heads").metrics
    assert copies["validation_loss"][-1] == copies["validation_loss_of_copy"][-1]


def test_it_takes_more_than_one_shard(finished_run):
    assert len(score_files(f"{finished_run.workspace}/scores")) > 1


def test_a_second_run_finds_everything_done(finished_run, caplog):
    workspace = Workspace(finished_run.workspace)
    jobs = {stage.__name__ for stage in STAGES}
    made = [kind for kind, job in MADE_BY.items() if job in jobs]
    before = {kind: workspace.open(kind).manifest for kind in made}

    with caplog.at_level("INFO"):
        pipeline(finished_run)

    assert {kind: workspace.open(kind).manifest for kind in made} == before
    assert caplog.text.count("is there already") == len(made)


@pytest.mark.thorough
def test_the_same_settings_give_the_same_scores(finished_run, tmp_path):
    again = finished_run.model_copy(update={"workspace": str(tmp_path)})
    pipeline(again)

    first, second = (
        read_artifact(Workspace(run.workspace).open("scores")).drop_columns("scored_at")
        for run in (finished_run, again)
    )

    assert first.select(["user_id", "item_id", "score", "exit_layer"]).equals(
        second.select(["user_id", "item_id", "score", "exit_layer"])
    )


def test_the_terminal_and_the_report_say_the_same(finished_run, caplog):
    with caplog.at_level("INFO"):
        report = evaluate(finished_run)

    summary = json.loads((report.path / "summary.json").read_text(encoding="utf-8"))
    shown = re.search(r"^\s*AUC\s+(0\.\d{4})", caplog.text, re.MULTILINE)
    html = (report.path / "report.html").read_text(encoding="utf-8")
    assert shown and shown[1] == f"{summary['model']['auc']:.4f}"
    assert f"{summary['model']['auc']:.4f}" in html
    assert summary["floors"]["user mean"]["auc"] > 0.5
    worth = summary["worth"]
    assert list(worth["layers"]) == ["0", "3", "4", "5"]
    assert worth["evidence"]["auc"] == worth["layers"]["0"]["auc"]
    assert worth["both"]["pairs"] == summary["model"]["pairs"]
    assert signed(worth["over_evidence"]["auc"][0]) in html


@pytest.fixture
def timed_tables(tmp_path):
    """Own data: a shop with prices and times, like in DESIGN's tables, nothing else."""
    rng = np.random.default_rng(0)
    items = [{"item_id": f"i{n}", "title": f"Lamp {n}", "colour": ("red", "blue")[n % 2]} for n in range(40)]
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        {
            "user_id": f"u{user}",
            "item_id": f"i{item}",
            "rating": float(rng.integers(1, 6)),
            "event_time": start + timedelta(days=int(rng.integers(0, 300)), seconds=int(rng.integers(0, 86400))),
        }
        for user in range(60)
        for item in rng.choice(40, 12, replace=False)
    ]
    folder = tmp_path / "own"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "interactions.parquet")
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet")
    return folder


def test_own_timed_tables_run_without_code(timed_tables, tmp_path):
    settings = tiny_settings(
        tmp_path / "workspace",
        dataset={"source": "tables", "path": str(timed_tables), "split": {"method": "time_cut", "tune_share": 0.3}},
        prompt={"template": "generic", "item_fields": ["colour"]},
    )

    pipeline(settings)

    workspace = Workspace(settings.workspace)
    interactions = Dataset.load(workspace.open("dataset").path).interactions.to_pylist()
    times = {name: [row["event_time"] for row in interactions if row["split"] == name] for name in ("train", "test")}
    assert max(times["train"]) < min(times["test"])
    assert len(read_artifact(workspace.open("scores"))) == len(times["test"]) > 20


def test_own_tables_without_times_are_split_by_user(timed_tables, tmp_path):
    interactions = pq.read_table(timed_tables / "interactions.parquet").drop_columns("event_time")
    pq.write_table(interactions, timed_tables / "interactions.parquet")
    settings = tiny_settings(tmp_path / "workspace", dataset={"source": "tables", "path": str(timed_tables)})

    info = Dataset.load(prepare_data(settings).path).info

    assert (info["split_method"], info["timed"]) == ("last_share", False)
    assert info["counts"]["test"] == 60  # a tenth of 12 ratings, for each of 60 users
    assert info["counts"]["tune"] == info["counts"]["tune_wanted"] == 42  # a tenth of 60 * 7; 2 of each user
    assert info["history_lengths"] == {"tune": {"8": 21}, "validation": {"10": 60}, "test": {"11": 60}}


@pytest.fixture
def small_llm(tmp_path):
    """Folder of a tiny pretrained Llama with a tokenizer of its own."""
    words = [f"'Lamp {n}, colour red (rating {n % 5})', " for n in range(40)] + [" yes", " no"] * 40
    tokenizer = train_tokenizer(words * 3, [], 400)
    tiny_llama(vocab_size=len(tokenizer), max_position_embeddings=2048).save_pretrained(tmp_path / "llm")
    tokenizer.save_pretrained(tmp_path / "llm")
    return tmp_path / "llm"


def own_llm_settings(config, data, workspace, llm):
    """Of the README's command for an LLM of one's own, on any config."""
    [command] = [command for command in JOBS if "llm.pretrained.path" in command]
    words = shlex.split(command)
    given = {"--config": config, "--data": data, "--workspace": workspace, "--llm.pretrained.path": llm}
    for name, value in given.items():
        words[words.index(name) + 1] = str(value)
    settings, _ = parse(words[words.index("-m") + 2 :])
    return settings


@pytest.mark.parametrize("config", sorted(Path("ray_jobs/configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_readmes_command_for_an_llm_of_ones_own_fits_every_config(config, tmp_path):
    settings = own_llm_settings(config, tmp_path, tmp_path, tmp_path)

    named = yaml.safe_load(config.read_text(encoding="utf-8"))["llm"].get("pretrained", {})
    # Nothing is left of a model from scratch, and of a pretrained one all but its place.
    assert settings.llm.chosen == PretrainedSettings(**{**named, "path": str(tmp_path)})


@pytest.mark.slow
@pytest.mark.thorough
def test_the_readmes_command_for_an_llm_of_ones_own_runs(timed_tables, small_llm, tmp_path):
    settings = own_llm_settings(Path("ray_jobs/configs/own-data.yaml"), timed_tables, tmp_path / "w", small_llm)
    few = settings.llm.pretrained.model_copy(update={"max_steps": 3})

    pipeline(changed(settings, llm={"pretrained": few}, exit_heads={"layers": (3,)}))  # the small one has 4 layers

    llm = Workspace(settings.workspace).open("llm")
    assert llm.manifest["config"]["llm"]["weights"] == weights_digest(small_llm)
    assert len(read_artifact(Workspace(settings.workspace).open("scores"))) > 20


@pytest.mark.slow
@pytest.mark.thorough
def test_amazon_gift_cards_run_end_to_end(shared_data, tmp_path):
    settings = tiny_settings(
        tmp_path,
        dataset={"source": "amazon", "path": str(shared_data / "amazon"), "category": "Gift_Cards",
                 "split": {"method": "leave_last_out"}},
        prompt={"template": "amazon", "max_tokens": 1024},
    )  # fmt: skip

    pipeline(settings)

    summary = json.loads((Workspace(settings.workspace).open("reports").path / "summary.json").read_text())
    assert summary["model"]["pairs"] > 100
