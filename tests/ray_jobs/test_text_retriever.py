"""The text comparator makes the artifacts that the GCN makes, from the encoder's weights and training interactions."""

import logging
import shutil

import pyarrow.compute as pc
import pytest
import torch

from optirag_core.artifacts import Workspace
from optirag_core.config.data import TextRetrieverSettings
from optirag_core.config.run import WorkersSettings
from optirag_core.data.dataset import Dataset
from optirag_core.errors import ModelError
from optirag_core.prompting.node_texts import NodeTexts
from optirag_core.retrieval.candidates import Candidates
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.text import TextEncoder
from optirag_core.retrieval.vectors import load_vectors
from ray_jobs.train_retriever import train_retriever
from tests.finished_run import changed
from tests.retrieval.encoders import tiny_bert

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, byte_tokenizer):
    folder = tmp_path_factory.mktemp("encoder")
    tiny_bert().save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    return folder


def by_text(settings, encoder, **sections):
    text = TextRetrieverSettings(encoder=str(encoder), max_tokens=64)
    return changed(settings, retriever={"method": "text", "text": text}, **sections)


def test_the_job_end_to_end(own_workspace, encoder, tmp_path, caplog):
    settings = by_text(own_workspace, encoder)
    workspace = Workspace(settings.workspace)
    dataset, gcn = workspace.open("dataset"), workspace.open("retriever")

    with caplog.at_level(logging.INFO):
        index = train_retriever(settings)

    retriever = workspace.open("retriever")
    assert f"texts read by {encoder}" in caplog.text
    assert retriever.version != gcn.version
    index.require_parent(retriever)
    user_ids, users = load_vectors(retriever.path, "user")
    item_ids, items = load_vectors(retriever.path, "item")
    for noun, ids, vectors in (("user", user_ids, users), ("item", item_ids, items)):
        assert ids.equals(load_vectors(gcn.path, noun)[0])
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(ids)))
    assert {"recall_at_20", "ndcg_at_20", "popularity_recall_at_20", "num_users"} <= retriever.metrics.keys()
    assert retriever.metrics["encoder"] == str(encoder)
    assert not {"num_epochs", "curve", "validation_loss"} & retriever.metrics.keys()

    texts = NodeTexts.open(settings, dataset.path).of_users(user_ids[:3].to_pylist())
    alone = TextEncoder.load(settings.retriever.text, encoder).encode(texts)
    torch.testing.assert_close(users[:3], alone, atol=1e-5, rtol=0)
    asked = user_ids[:2].to_pylist()
    similar = UserIndex.load(retriever.path, index.path).similar_batch(asked, 4)
    assert [len(neighbours) for neighbours in similar] == [4, 4]
    candidates = Candidates.load(retriever.path, dataset.path).top(asked, 5)
    rows = Dataset.load(dataset.path).interactions
    for user_id, best in zip(asked, candidates, strict=True):
        met = rows.filter(pc.equal(rows["user_id"], user_id))["item_id"].to_pylist()
        assert len(set(best) - set(met)) == 5

    moved = shutil.copytree(encoder, tmp_path / "elsewhere")
    assert train_retriever(by_text(own_workspace, moved)).digest == index.digest


@pytest.mark.slow
@pytest.mark.thorough
def test_two_workers_read_what_one_process_reads(own_workspace, encoder):
    alone = Workspace(own_workspace.workspace)
    one = by_text(own_workspace, encoder)
    train_retriever(one)
    expected = [load_vectors(alone.open("retriever").path, noun)[1] for noun in ("user", "item")]
    alone.remove("retriever", alone.latest("retriever"))
    two = WorkersSettings(num_workers=2, num_cpus_per_worker=0.5, torch_threads=1)
    train_retriever(by_text(own_workspace, encoder, training={"retriever": two}))
    found = [load_vectors(alone.open("retriever").path, noun)[1] for noun in ("user", "item")]
    for vectors, of_one in zip(found, expected, strict=True):
        torch.testing.assert_close(vectors, of_one, atol=1e-5, rtol=0)


def test_a_file_that_is_no_encoder_stops_the_job_before_ray(own_workspace, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("no weights", encoding="utf-8")
    with pytest.raises(ModelError, match=r"notes\.txt.*set retriever\.text\.encoder to a folder"):
        train_retriever(by_text(own_workspace, file))
