"""Scoring through Ray: the same as in this process, and every odd request ends in a score or a reject."""

import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from optirag_core.artifacts import Workspace
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import REQUESTS
from optirag_core.data.splits import requests_for
from optirag_core.engine.loading import load_tokenizer
from optirag_core.errors import ConfigError, RunIncomplete, RunMismatch
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import check_prompts_fit, open_assembler, open_scorer
from optirag_core.prompting.assembly import requests_from
from optirag_core.runs.reader import read_artifact, read_scores
from ray_jobs.score import score
from ray_jobs.shard_stages import open_run
from tests.finished_run import changed

pytestmark = pytest.mark.ray


def test_ray_gives_what_this_process_gives(finished_run, tmp_path):
    artifacts = open_artifacts(finished_run, *TRAINED)
    dataset = Dataset.load(artifacts["dataset"].path)
    assembler, _ = open_assembler(finished_run, artifacts, load_tokenizer(artifacts["llm"].path))
    requests = requests_for(dataset.interactions, "test")
    scorer = open_scorer(finished_run, artifacts)
    expected = {}
    run = open_run(finished_run, artifacts.workspace.latest("scores"))
    shards = [run.requests(shard, tmp_path) for shard in run.plan().shards]
    assert pa.concat_tables(shards).equals(requests.select(REQUESTS.names))
    for shard in shards:
        assembled = assembler.assemble(requests_from(shard))
        scores = scorer.score([result.prompt.group for result in assembled]).scores
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
        {"user_id": "nothing", "item_ids": None},
        {"user_id": None, "item_ids": [item, None]},
        {"user_id": "\0" * 1000, "item_ids": ["x" * 2**20, ""]},
        {"user_id": "stranger", "item_ids": [item]},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(REQUESTS)[:2])), tmp_path / "requests.parquet")

    manifest = score(
        changed(finished_run, requests={"path": str(tmp_path / "requests.parquet")}, run={"max_reject_share": 1.0})
    )

    uri = f"{finished_run.workspace}/scores/{manifest['version']}"
    [scored] = read_scores(uri).to_pylist()
    assert manifest["metrics"]["scored"] + manifest["metrics"]["rejected"] == 9
    assert (scored["user_id"], scored["item_id"], scored["cold_start"]) == ("stranger", item, True)
    assert scored["num_similar_users"] == 0
    codes = {row["error_code"] for row in read_scores(uri, kind="rejects").to_pylist()}
    assert codes == {"unknown_item", "null_item", "null_user", "duplicate_pair"}


def test_too_many_rejects_write_nothing(finished_run, tmp_path):
    pq.write_table(pa.table({"user_id": ["u"], "item_ids": [["no such item"]]}), tmp_path / "requests.parquet")
    before = Workspace(finished_run.workspace).latest("scores")

    with pytest.raises(
        RunIncomplete, match=r"1 of 1 pairs were rejected, 1 of them as unknown_item[^%]*max_reject_share 1.00%"
    ):
        score(changed(finished_run, requests={"path": str(tmp_path / "requests.parquet")}))

    assert Workspace(finished_run.workspace).latest("scores") == before


def test_prompts_longer_than_the_llm_reads_are_refused(finished_run):
    artifacts = open_artifacts(finished_run, *TRAINED)

    with pytest.raises(ConfigError, match=r"prompt.max_tokens 4096 exceeds the LLM's context of 2048 tokens"):
        check_prompts_fit(changed(finished_run, prompt={"max_tokens": 4096}), artifacts)


def test_prompts_longer_than_a_step_of_the_engine_are_refused(finished_run):
    with pytest.raises(ConfigError, match=r"max_tokens 2048 exceeds a step of the scorer, 2000: raise engine\.max_tok"):
        score(changed(finished_run, engine={"max_tokens_in_flight": 4000}))


CHANGES = {
    "exit_policy.threshold": 0.5,
    "exit_policy.criterion": "probability",
    "exit_policy.window": 2,
    "exit_policy.group_stop": 2,
    "exit_policy.frozen_prefix_after": 3,
    "engine.dtype": "bfloat16",
    "engine.max_tokens_in_flight": 8192,
    "engine.deterministic": True,
    "engine.compile_layers": True,
    "run.pairs_per_shard": 7,
    "requests.max_users": 5,
    "requests.path": "FILE",
    "requests.all_items_top_k": 3,
}
NAMED_OTHERWISE = {"requests.path": "requests.files.requests.parquet"}


@pytest.fixture(scope="module")
def named_run(finished_run):
    settings = changed(finished_run, run={"name": "named"})
    score(settings)
    return settings


@pytest.mark.parametrize("name", CHANGES)
def test_a_run_is_not_resumed_with_another_setting_or_input(named_run, tmp_path, name):
    section, key = name.split(".")
    value = CHANGES[name]
    if value == "FILE":
        value = str(tmp_path / "requests.parquet")
        pq.write_table(pa.table({"user_id": ["u"], "item_ids": [["i"]]}), value)
    changed = getattr(named_run, section).model_copy(update={key: value})

    with pytest.raises(RunMismatch, match="scores/named was begun with") as caught:
        score(named_run.model_copy(update={section: changed}))

    assert NAMED_OTHERWISE.get(name, name) in str(caught.value)


def test_a_run_is_not_resumed_with_another_llm(named_run, tmp_path):
    """An LLM, heads and a policy that say they are others, with the same files."""
    workspace = Workspace(named_run.workspace)
    before = {kind: workspace.open(kind) for kind in ("llm", "exit_heads", "exit_policy")}
    others: dict[str, str] = {}
    for kind, artifact in before.items():
        shutil.copytree(artifact.path, tmp_path / kind, ignore=shutil.ignore_patterns("manifest.json"))
        others[kind] = workspace.save(
            kind, "other", tmp_path / kind, config=artifact.manifest["config"] | {"seed": 1},
            parents=artifact.manifest["parents"] | others, metrics=artifact.metrics,
        ).digest  # fmt: skip

    try:
        with pytest.raises(RunMismatch, match=r"artifacts\.exit_heads = .*artifacts\.llm"):
            score(named_run)
    finally:
        for kind, artifact in before.items():
            workspace.select(kind, artifact.version)


def test_users_without_candidates_get_the_retrievers_best(finished_run, tmp_path):
    dataset = Dataset.load(Workspace(finished_run.workspace).open("dataset").path)
    [known] = dataset.interactions.filter(pc.equal(dataset.interactions["split"], "train"))["user_id"][:1].to_pylist()
    rows = [{"user_id": known}, {"user_id": "stranger"}, {"user_id": "zoe", "item_ids": [dataset.items["item_id"][0]]}]
    pq.write_table(pa.Table.from_pylist(rows, schema=REQUESTS), tmp_path / "requests.parquet")

    manifest = score(changed(finished_run, requests={"path": str(tmp_path / "requests.parquet"), "all_items_top_k": 4}))

    scores = read_scores(f"{finished_run.workspace}/scores/{manifest['version']}")
    counts = Counter(scores["user_id"].to_pylist())
    assert counts == {known: 4, "stranger": 4, "zoe": 1}


def test_pairs_in_any_order_are_scored_like_requests(finished_run, named_run, tmp_path):
    requests = requests_for(Dataset.load(Workspace(finished_run.workspace).open("dataset").path).interactions, "test")
    pairs = pa.table(
        {
            "user_id": requests["user_id"].take(pc.list_parent_indices(requests["item_ids"])),
            "item_id": pc.list_flatten(requests["item_ids"]),
            "as_of_position": requests["as_of_position"].take(pc.list_parent_indices(requests["item_ids"])),
        }
    )
    shuffled = pairs.take(np.random.default_rng(0).permutation(len(pairs)))
    for number in (0, 1):
        part = shuffled.slice(60 * number, None if number else 60)
        pq.write_table(part, tmp_path / f"pairs-{number}.parquet")

    manifest = score(changed(finished_run, requests={"path": str(tmp_path)}))

    order = [("user_id", "ascending"), ("item_id", "ascending")]
    columns = ["user_id", "item_id", "score"]
    by_pairs = read_scores(f"{finished_run.workspace}/scores/{manifest['version']}").select(columns).sort_by(order)
    by_requests = read_scores(f"{finished_run.workspace}/scores/named").select(columns).sort_by(order)
    assert by_pairs.drop_columns("score").equals(by_requests.drop_columns("score"))
    assert by_pairs["score"].to_pylist() == pytest.approx(by_requests["score"].to_pylist(), abs=1e-5)
