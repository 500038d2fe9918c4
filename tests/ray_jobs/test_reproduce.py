"""The whole study on a small run: every part, kept cells, and a workspace whose newest artifacts stay the run's own."""

import pyarrow.parquet as pq
import pytest

from optirag_core.artifacts import VARIANTS, Workspace
from optirag_core.config.reproduction import PARTS
from ray_jobs.reproduce import reproduce
from ray_jobs.reproduction.study import MEASURED
from tests.finished_run import changed

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.thorough]
SMALL = {"num_similar_users": (0, 2), "timed_users": 8, "timed_rounds": 1, "calibration_users": 4}
FEW = {"models": ("DeepFM", "DIN"), "num_trials": 1, "max_epochs": 1}


@pytest.fixture
def settings(own_workspace):
    return changed(own_workspace, reproduce=SMALL | {"tune": "shared"}, baselines=FEW)


def newest(settings):
    workspace = Workspace(settings.workspace)
    return {kind: workspace.latest(kind) for kind in MEASURED}


def test_every_part_is_in_the_report_and_the_newest_artifacts_stay(settings):
    before = newest(settings)

    artifact = reproduce(settings)

    assert newest(settings) == before
    numbers = pq.read_table(artifact.path / "numbers.parquet")
    assert set(numbers["section"].to_pylist()) == set(PARTS)
    page, text = ((artifact.path / f"report.{ending}").read_text(encoding="utf-8") for ending in ("html", "md"))
    for title in ("Table 2", "Table 3", "Table 4", "Table 5", "Table 9", "Figure 3", "Figure 4", "Figure 6"):
        assert title in page and title in text
    assert "| cluster | " in text  # what the rates are of
    leaks = [row for row in numbers.to_pylist() if row["table"] == "leaks" and row["column"] == "violations"]
    assert leaks and not any(row["value"] for row in leaks)
    rows = {row["row"] for row in numbers.to_pylist() if row["table"] == "table2"}
    assert {"DeepFM", "DIN", "TALLRec", "LLM-retriever", "GCN-retriever", "OptiRAG-Rec", "strong regression"} <= rows


def test_what_is_measured_is_not_measured_again(settings, caplog):
    caplog.set_level("INFO")
    reproduce(settings)
    caplog.clear()

    again = reproduce(changed(settings, reproduce={"parts": ("table3", "table4")}))

    assert not [line for line in caplog.messages if line.endswith(": measured")]
    assert set(pq.read_table(again.path / "numbers.parquet")["section"].to_pylist()) == {"table3", "table4"}


def test_an_llm_of_its_own_for_each_row(settings):
    artifact = reproduce(changed(settings, reproduce={"tune": "each", "parts": ("table5",)}))

    aside = Workspace(f"{settings.workspace}/{VARIANTS}")
    assert aside.open("llm").manifest["parents"]["retriever"] == aside.open("retriever").digest
    assert aside.open("retriever").manifest["config"]["retriever"]["method"] == "fm"
    assert "tuned on prompts of its own retriever" in (artifact.path / "report.md").read_text(encoding="utf-8")
