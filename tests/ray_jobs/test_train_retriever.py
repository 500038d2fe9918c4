"""The index over the retriever's users: what is measured at its making, and what is refused."""

import numpy as np
import pyarrow.compute as pc
import pytest

from optirag_core.artifacts import Workspace
from optirag_core.data.dataset import Dataset
from optirag_core.data.histories import Histories
from optirag_core.errors import ConfigError
from optirag_core.retrieval.faiss_library import load_faiss
from optirag_core.retrieval.fold_in import FoldIn
from optirag_core.retrieval.vectors import load_fold_in, load_vectors
from ray_jobs.train_retriever import train_retriever
from tests.finished_run import changed

pytestmark = pytest.mark.ray


def num_train(settings) -> np.ndarray:
    """Training interactions of each user who has any."""
    rows = Dataset.load(Workspace(settings.workspace).open("dataset").path).interactions
    users = rows.filter(pc.equal(rows["split"], "train"))["user_id"].to_pylist()
    return np.unique(users, return_counts=True)[1]


def test_the_default_index_finds_all(finished_run):
    metrics = Workspace(finished_run.workspace).open("index").metrics
    assert metrics["recall_at_10"] == 1.0
    assert metrics["num_users"] == metrics["num_indexed"] == len(num_train(finished_run))


def test_the_artifact_holds_what_users_are_folded_in_with(finished_run):
    retriever = Workspace(finished_run.workspace).open("retriever").path
    dataset = Workspace(finished_run.workspace).open("dataset").path
    (item_ids, _), (user_ids, users) = (load_vectors(retriever, noun) for noun in ("item", "user"))
    fold_in, histories = FoldIn(item_ids, load_fold_in(retriever)), Histories.open(dataset)
    folded = [fold_in.vector(histories.training_items(user_id)) for user_id in user_ids.to_pylist()]
    np.testing.assert_allclose(folded, users, atol=1e-5)


def test_users_with_few_training_interactions_are_left_out(own_workspace):
    counts = num_train(own_workspace)
    bound = int(np.median(counts))
    metrics = train_retriever(changed(own_workspace, index={"min_history": bound})).metrics
    assert metrics["num_users"] == len(counts)
    assert metrics["num_indexed"] == np.count_nonzero(counts >= bound) < len(counts)


def test_too_little_recall_is_refused(own_workspace):
    coarse = {"factory": "IVF16,Flat", "search_parameters": "nprobe=1"}
    before = Workspace(own_workspace.workspace).open("index").version
    with pytest.raises(ConfigError, match=r"'IVF16,Flat' finds .* index\.min_recall is 0\.9"):
        train_retriever(changed(own_workspace, index=coarse))
    assert Workspace(own_workspace.workspace).open("index").version == before

    made = train_retriever(changed(own_workspace, index={**coarse, "min_recall": 0.0}))
    assert 0.0 < made.metrics["recall_at_10"] < 0.9
    with pytest.raises(ConfigError, match=r"index\.min_recall is 0\.9"):  # now it is there
        train_retriever(changed(own_workspace, index=coarse))


def test_a_missing_gpu_is_noticed_before_the_training(own_workspace, monkeypatch):
    monkeypatch.setattr(load_faiss(), "get_num_gpus", lambda: 0)
    before = Workspace(own_workspace.workspace).open("retriever").version
    with pytest.raises(ConfigError, match=r"index\.gpu is true, but FAISS sees no GPU"):
        train_retriever(changed(own_workspace, retriever={"max_epochs": 2}, index={"gpu": True}))
    assert Workspace(own_workspace.workspace).open("retriever").version == before
