"""Scoring through Ray: the same as in this process, and every odd request ends in a score or a reject."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from optirag_core.artifacts import Workspace
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import REQUESTS
from optirag_core.data.splits import requests_for
from optirag_core.engine.loading import load_llm
from optirag_core.errors import ArtifactMismatch, RunIncomplete
from optirag_core.prompting.assembly import requests_from
from optirag_core.runs.reader import read_artifact
from ray_jobs.artifact_job import open_inputs
from ray_jobs.prompt_stage import open_assembler
from ray_jobs.score import score
from ray_jobs.shard_stages import KINDS, open_run, open_scorer
from tests.ray_jobs.conftest import with_scoring

pytestmark = pytest.mark.ray


def test_ray_gives_what_this_process_gives(finished_run, tmp_path):
    inputs = open_inputs(finished_run, *KINDS)
    dataset = Dataset.load(inputs["dataset"].path)
    _, tokenizer = load_llm(inputs["llm"].path)
    assembler, _ = open_assembler(finished_run, dataset, inputs["retriever"], tokenizer)
    requests = requests_for(dataset.interactions, "test")
    scorer = open_scorer(finished_run, inputs)
    expected = {}
    run = open_run(finished_run, inputs.workspace.latest("scores"))
    shards = [run.requests(shard, tmp_path) for shard in run.plan().shards]
    assert pa.concat_tables(shards).equals(requests.select(REQUESTS.names))
    for shard in shards:
        assembled = assembler.assemble(requests_from(shard))
        scores = scorer.score([result.prompt.group for result in assembled])
        for user, result, pairs in zip(shard["user_id"].to_pylist(), assembled, scores, strict=True):
            expected |= {(user, item): pair for item, pair in zip(result.candidates, pairs, strict=True)}

    rows = read_artifact(Workspace(finished_run.workspace).open("scores")).to_pylist()

    assert len(rows) == len(expected)
    for row in rows:
        pair = expected[row["user_id"], row["item_id"]]
        assert row["score"] == pytest.approx(pair.score, abs=1e-6)
        assert row["exit_layer"] == pair.exit_layer


def test_odd_requests_are_scored_or_rejected_with_a_reason(finished_run, tmp_path):
    item = Dataset.load(Workspace(finished_run.workspace).open("dataset").path).items["item_id"][0].as_py()
    rows = [
        {"user_id": "stranger", "item_ids": [item, "no such item", None, item]},
        {"user_id": "empty", "item_ids": []},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(REQUESTS)[:2])), tmp_path / "requests.parquet")

    artifact = score(with_scoring(finished_run, requests=str(tmp_path / "requests.parquet"), max_reject_share=1.0))

    [scored] = read_artifact(artifact).to_pylist()
    assert (scored["user_id"], scored["item_id"], scored["cold_start"]) == ("stranger", item, True)
    assert scored["num_similar_users"] == 0
    codes = {row["error_code"] for row in read_artifact(artifact, "rejects").to_pylist()}
    assert codes == {"unknown_item", "null_item", "duplicate_pair"}


def test_other_prompts_are_another_run(finished_run):
    """A shorter history is no other template, but other scores: those at hand must not be taken for them."""
    shorter = finished_run.model_copy(update={"prompt": finished_run.prompt.model_copy(update={"max_history": 3})})
    before = score(finished_run)  # at hand: the newest of its kind again

    after = score(shorter)

    assert after.version != before.version
    old, new = (read_artifact(run)["score"].to_pylist() for run in (before, after))
    assert len(old) == len(new) and old != new
    Workspace(finished_run.workspace).select("scores", before.version)


def test_too_many_rejects_write_nothing(finished_run, tmp_path):
    pq.write_table(pa.table({"user_id": ["u"], "item_ids": [["no such item"]]}), tmp_path / "requests.parquet")
    before = Workspace(finished_run.workspace).latest("scores")

    with pytest.raises(
        RunIncomplete, match=r"1 of 1 pairs were rejected, 1 of them as unknown_item[^%]*max_reject_share 1.00%"
    ):
        score(with_scoring(finished_run, requests=str(tmp_path / "requests.parquet")))

    assert Workspace(finished_run.workspace).latest("scores") == before


def test_another_template_than_the_llm_was_tuned_on_is_refused(finished_run):
    other = finished_run.model_copy(update={"prompt": finished_run.prompt.model_copy(update={"template": "generic"})})

    with pytest.raises(ArtifactMismatch, match="was tuned on another prompt"):
        score(other)
