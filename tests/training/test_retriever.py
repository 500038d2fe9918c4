import math

import pytest
import torch
import torch.nn.functional as F

from optirag_core.config.data import IndexSettings, RetrieverSettings
from optirag_core.errors import ConfigError, DataError
from optirag_core.retrieval.gcn import Gcn
from optirag_core.retrieval.graph import build_graph
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.metrics import retrieval_metrics
from optirag_core.retrieval.triples import sample_triples
from optirag_core.training import retriever
from optirag_core.training.retriever import train_retriever, training_bytes
from optirag_core.training.workers import Workers
from tests.retrieval.reference_retrieval import dense_adjacency, dense_propagation, interactions

SMALL = RetrieverSettings(embedding_dim=8, batch_size=16, max_epochs=10, patience=3, learning_rate=0.05)


def community_rows(num_users=24, num_items=16, seed=0):
    """Two communities of users with items of their own, each user with half of them; one edge per user held out."""
    generator = torch.Generator().manual_seed(seed)
    train, held_out = [], []
    for user in range(num_users):
        community = user % 2
        chosen = torch.randperm(num_items // 2, generator=generator)[: num_items // 4 + 1].tolist()
        *known, last = [(f"u{user:02}", f"i{2 * item + community:02}") for item in chosen]
        train += known
        held_out.append(last)
    return train, held_out


def train(settings=SMALL, *, held_out=None, seed=0, **kwargs):
    train_rows, validation = community_rows()
    graph = build_graph(interactions(*train_rows))
    rows = interactions(*(validation if held_out is None else held_out), split="validation")
    return graph, train_retriever(graph, rows, settings, seed=seed, **kwargs)


@pytest.mark.parametrize("method", ["gcn", "fm"])
def test_users_of_the_same_community_come_first(method):
    graph, trained = train(SMALL.model_copy(update={"method": method}))
    index = UserIndex.build(graph.user_ids, trained.user_embeddings, IndexSettings())
    for user in range(24):
        neighbours = index.similar(f"u{user:02}", 5)
        assert {int(neighbour.user_id[1:]) % 2 for neighbour in neighbours} == {user % 2}


def test_trained_users_are_the_sums_of_their_items():
    graph, trained = train()
    sums = torch.zeros(graph.num_users, SMALL.embedding_dim)
    sums.index_add_(0, graph.user_index, trained.item_fold_in[graph.item_index])
    torch.testing.assert_close(F.normalize(sums, dim=-1), trained.user_embeddings, atol=1e-5, rtol=0)


def test_loss_falls_below_chance():
    _, trained = train()
    losses = [epoch["loss"] for epoch in trained.history]
    assert losses[-1] < 0.5 * math.log(2)  # log 2: both items alike
    assert trained.metrics["validation_loss"] < 0.5 * math.log(2)


def test_first_loss_equals_reference():
    """One batch of all triples: BPR of the untrained dense embeddings + l2 * |raw embeddings of the triples|^2 / B."""
    settings = SMALL.model_copy(update={"batch_size": 10_000, "max_epochs": 1, "l2": 0.1})
    graph, trained = train(settings)
    model = Gcn(graph.num_nodes, settings, seed=0)
    seed = int(torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(0)))
    users, positives, negatives = sample_triples(graph, seed=seed)
    raw = model.embedding.weight.detach().double()
    edges = list(zip(graph.user_index.tolist(), graph.item_index.tolist(), strict=True))
    adjacency = dense_adjacency(edges, graph.num_users, graph.num_items)
    nodes = torch.from_numpy(dense_propagation(adjacency, raw.numpy(), [1 / 3] * 3))
    total = 0.0
    for triple in torch.stack([users, positives + graph.num_users, negatives + graph.num_users], dim=1):
        user, positive, negative = nodes[triple]
        total -= float(F.logsigmoid(user @ (positive - negative)))
        total += 0.1 * float((raw[triple] ** 2).sum())
    assert trained.history[0]["loss"] == pytest.approx(total / len(users), abs=1e-5)


def test_one_seed_one_result():
    (_, first), (_, second), (_, other) = train(), train(), train(seed=1)
    assert first.history == second.history
    assert torch.equal(first.user_embeddings, second.user_embeddings)
    assert first.history != other.history


@pytest.mark.parametrize("split", ["tune", "validation", "test"])
def test_planted_held_out_rows_change_no_embedding(split):
    train_rows, validation = community_rows()
    leak = [(f"u{user:02}", f"i{(3 * user + 1) % 16:02}", split) for user in range(24)]
    held_out = interactions(*validation, split="validation")
    results = [
        train_retriever(build_graph(interactions(*train_rows, *extra)), held_out, SMALL, seed=0) for extra in ([], leak)
    ]
    assert torch.equal(results[0].user_embeddings, results[1].user_embeddings)
    assert torch.equal(results[0].item_embeddings, results[1].item_embeddings)


def test_early_stop_keeps_the_best_epoch():
    opposite = [(f"u{user:02}", f"i{2 * (user % 8) + 1 - user % 2:02}") for user in range(24)]
    epochs = []
    _, trained = train(held_out=opposite, on_epoch=lambda epoch, entry: epochs.append((epoch, entry["loss"])))
    losses = [epoch["validation_loss"] for epoch in trained.history]
    best = losses.index(min(losses))
    assert trained.metrics["best_epoch"] == best
    assert trained.metrics["num_epochs"] == len(losses) == best + 1 + SMALL.patience < SMALL.max_epochs
    assert trained.metrics["stopped_early"] is True
    assert trained.metrics["validation_loss"] == min(losses)
    assert epochs == [(epoch, entry["loss"]) for epoch, entry in enumerate(trained.history)]
    recalls = [[epoch["step"], epoch["recall_at_20"]] for epoch in trained.history]
    assert trained.metrics["curve"]["recall_at_20"] == recalls
    until_best = SMALL.model_copy(update={"max_epochs": best + 1})
    _, again = train(until_best, held_out=opposite)
    assert torch.equal(trained.user_embeddings, again.user_embeddings)
    assert again.metrics["stopped_early"] is False


def test_every_epoch_is_ranked_as_its_embeddings_are():
    settings = SMALL.model_copy(update={"max_epochs": 3, "patience": 3})
    graph, trained = train(settings)
    _, validation = community_rows()
    held_out = interactions(*validation, split="validation")
    expected = retrieval_metrics(trained.user_embeddings, trained.item_embeddings, graph, held_out)
    best = trained.history[trained.metrics["best_epoch"]]
    assert {name: best[name] for name in ("recall_at_20", "ndcg_at_20")} == {
        name: pytest.approx(expected[name]) for name in ("recall_at_20", "ndcg_at_20")
    }
    assert len({epoch["ndcg_at_20"] for epoch in trained.history}) == 3


@pytest.mark.parametrize("held_out", [[], [("nobody", "i01"), ("u01", "nothing")]])
def test_without_usable_validation_all_epochs_are_trained(held_out):
    _, trained = train(held_out=held_out)
    curve = trained.metrics["curve"]
    assert curve["loss"][-1][0] == trained.history[-1]["step"]
    assert curve["validation_loss"] == curve["recall_at_20"] == []
    assert {name: value for name, value in trained.metrics.items() if name != "curve"} == {
        "num_epochs": SMALL.max_epochs,
        "best_epoch": SMALL.max_epochs - 1,
        "stopped_early": False,
        "validation_loss": None,
        "num_validation_edges": 0,
        "num_skipped_validation_edges": len(held_out),
    }
    assert {epoch["validation_loss"] for epoch in trained.history} == {None}
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]


def test_unknown_validation_edges_are_counted():
    _, validation = community_rows()
    _, trained = train(held_out=[*validation, ("nobody", "i01")])
    assert trained.metrics["num_validation_edges"] == len(validation)
    assert trained.metrics["num_skipped_validation_edges"] == 1


def test_divergence_is_an_error():
    with pytest.raises(ConfigError, match=r"retriever: the loss became (inf|nan) at step \d; lower the learning_rate"):
        train(SMALL.model_copy(update={"learning_rate": 1e30}))


def test_nothing_to_learn_is_an_error():
    graph = build_graph(interactions(("a", "x"), ("b", "x")))  # nobody has a negative
    with pytest.raises(DataError, match="0 triples"):
        train_retriever(graph, interactions(), SMALL, seed=0)


def test_what_does_not_fit_into_memory_is_refused_before_it_begins(monkeypatch):
    """40 columns of 40 nodes: 9 arrays of 4 bytes, 57,600; the rest is of edges and triples."""
    settings = SMALL.model_copy(update={"embedding_dim": 40})
    train_rows, _ = community_rows()
    graph = build_graph(interactions(*train_rows))
    whole = training_bytes(graph, settings, 1)
    assert graph.num_nodes == 40
    assert 57_600 < whole < 3 * 57_600
    assert whole - training_bytes(graph, settings, 2) > 57_600 / 2  # a worker of two has half of the columns
    monkeypatch.setattr(retriever, "free_bytes", lambda device: whole - 1)
    with pytest.raises(
        ConfigError, match=r"40 nodes, 96 edges and embedding_dim 40 need 0\.0 GiB in each of 1 workers"
    ):
        train(settings)
    monkeypatch.setattr(retriever, "free_bytes", lambda device: whole)
    train(settings)


def test_more_workers_than_columns_are_refused():
    with pytest.raises(ConfigError, match=r"9 workers share the columns .* embedding_dim is 8"):
        train(workers=Workers(size=9))


def test_learned_layer_weights_leave_the_mean():
    settings = SMALL.model_copy(update={"aggregate": "weighted"})
    _, learned = train(settings)
    _, mean = train()
    difference = abs(learned.history[-1]["loss"] - mean.history[-1]["loss"])
    assert difference > 1e-3  # they begin as the mean: weights that stayed there would differ by rounding alone
