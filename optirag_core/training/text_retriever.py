"""The text comparator's user and item vectors. Nothing is trained: workers share the texts that are read.

Shape legend: `U` users, `I` items, `N` nodes = U + I (users first), `D` width of the encoder.
"""

from collections.abc import Callable

import torch

from optirag_core.prompting.node_texts import NodeTexts
from optirag_core.retrieval.graph import BipartiteGraph
from optirag_core.retrieval.text import TextEncoder
from optirag_core.training.retriever import TrainedRetriever
from optirag_core.training.workers import Workers

TEXTS_PER_CHUNK = 2048
"""Bounds the texts and tokens in memory; enough for batches of texts of almost one length."""


def read_retriever(
    graph: BipartiteGraph,
    texts: NodeTexts,
    encoder: TextEncoder,
    *,
    workers: Workers = Workers(),
    on_chunk: Callable[[int, int], None] | None = None,
) -> TrainedRetriever | None:
    """Read every user's history and every item of the graph.

    A worker reads every W-th chunk; chunks are the same on any number of workers, and so are the vectors.

    Source: arXiv:2501.02173v2, section 6: the LLM-retriever that the GCN is compared with.

    Args:
        on_chunk: called after each of this worker's chunks with its number from 1, and theirs in all.

    Returns:
        What rank 0 has, items of length 1 too; None on the others. Nothing to fold in: a user's vector is that of the
        history's text, not a sum over items, so what happens after training leaves it as it is.
    """
    vectors = torch.zeros(graph.num_nodes, encoder.width)  # [N, D]
    chunks = [
        (offset + start, ids[start : start + TEXTS_PER_CHUNK], texts_of)
        for offset, ids, texts_of in (
            (0, graph.user_ids, texts.of_users),
            (graph.num_users, graph.item_ids, texts.of_items),
        )
        for start in range(0, len(ids), TEXTS_PER_CHUNK)
    ]
    mine = chunks[workers.rank :: workers.size]
    for number, (first, ids, texts_of) in enumerate(mine, start=1):
        vectors[first : first + len(ids)] = encoder.encode(texts_of(ids.to_pylist()))
        if on_chunk is not None:
            on_chunk(number, len(mine))
    if workers.size > 1:  # every row is one worker's, zeros of the others
        for chunk in vectors.split(TEXTS_PER_CHUNK):
            chunk.copy_(workers.sum(chunk))
    if workers.rank:
        return None
    users, items = vectors.split([graph.num_users, graph.num_items])
    num_parameters = sum(parameter.numel() for parameter in encoder.model.parameters())
    return TrainedRetriever(users, items, (), {"num_parameters": num_parameters})
