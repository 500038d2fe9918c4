"""Vectors of users and items from texts, behind the interface of the trained retrievers."""

import pytest
import torch

from optirag_core.config.data import IndexSettings
from optirag_core.retrieval.graph import build_graph
from optirag_core.retrieval.index import UserIndex
from optirag_core.training import text_retriever
from optirag_core.training.text_retriever import read_retriever
from tests.retrieval.encoders import node_texts, tiny_encoder
from tests.retrieval.reference_retrieval import interactions

ROWS = [(f"u{user:02}", f"i{(user * step) % 9:02}") for user in range(20) for step in (1, 4)]


def read(*extra, **kwargs):
    rows = interactions(*dict.fromkeys(ROWS), *extra)
    graph = build_graph(rows)
    return graph, read_retriever(graph, node_texts(rows), tiny_encoder("llama"), **kwargs)


def test_rows_are_those_of_the_graph_whatever_the_chunks(monkeypatch):
    chunks = []
    monkeypatch.setattr(text_retriever, "TEXTS_PER_CHUNK", 6)
    graph, found = read(on_chunk=lambda *progress: chunks.append(progress))
    rows = interactions(*dict.fromkeys(ROWS))
    encoder, texts = tiny_encoder("llama"), node_texts(rows)
    for ids, vectors, texts_of in (
        (graph.user_ids, found.user_embeddings, texts.of_users),
        (graph.item_ids, found.item_embeddings, texts.of_items),
    ):
        assert vectors.shape == (len(ids), encoder.width)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(ids)))
        for node_id, vector in zip(ids.to_pylist(), vectors, strict=True):
            [expected] = encoder.encode(texts_of([node_id]))
            torch.testing.assert_close(vector, expected, atol=1e-5, rtol=0)
    assert chunks == [(number, 6) for number in range(1, 7)]  # 20 users in 4, 9 items in 2


@pytest.mark.parametrize("split", ["tune", "validation", "test"])
def test_planted_held_out_rows_change_no_vector(split):
    leak = [(f"u{user:02}", f"i{(user + 5) % 9:02}", split) for user in range(20)]
    (_, clean), (_, planted) = read(), read(*leak)
    assert torch.equal(planted.user_embeddings, clean.user_embeddings)
    assert torch.equal(planted.item_embeddings, clean.item_embeddings)
    _, learned = read(*((user, item, "train") for user, item, _ in leak))
    assert not torch.equal(learned.user_embeddings, clean.user_embeddings)


def test_users_of_one_history_are_most_similar():
    rows = interactions(*(tuple(pair) for pair in ("ax", "ay", "az", "bp", "bq", "br", "cx", "cy", "cz")))
    graph = build_graph(rows)
    found = read_retriever(graph, node_texts(rows), tiny_encoder("bert"))
    index = UserIndex.build(graph.user_ids, found.user_embeddings, IndexSettings())
    [nearest] = index.similar("a", 1)
    assert nearest.user_id == "c"
    assert nearest.similarity == pytest.approx(1.0, abs=1e-6)
