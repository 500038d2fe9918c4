"""Train the retriever's embeddings with the BPR loss.

Shape legend: `U` users, `I` items, `N` nodes = U + I (users first), `B` triples, `D` embedding width, `W` workers.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optirag_core.config.data import RetrieverSettings
from optirag_core.errors import ConfigError, DataError
from optirag_core.retrieval.gcn import Gcn, embedding_model, item_fold_in, user_and_item_embeddings
from optirag_core.retrieval.graph import BipartiteGraph, normalized_adjacency
from optirag_core.retrieval.metrics import HeldOutUsers
from optirag_core.retrieval.triples import fixed_triples, num_triples, sample_triples
from optirag_core.training.checkpoints import Checkpoints
from optirag_core.training.curve import values_of
from optirag_core.training.loop import Step, optimize
from optirag_core.training.selection import BestWeights
from optirag_core.training.state import Training
from optirag_core.training.workers import Workers, columns, gathered, spread_columns

GIB = 2**30
FLOAT_BYTES = 4
EPOCH_USERS = 1000
"""Ranked after each epoch, among the first to rank in the end: the standard error of a Recall near 0.1 is then 0.01."""


@dataclass(frozen=True)
class TrainedRetriever:
    """Embeddings, where they are trained those of the best epoch, and how training went.

    Attributes:
        user_embeddings: [U, D] float32, each of length 1.
        item_embeddings: [I, D] float32.
        history: one mapping per epoch: step (its last), loss, validation_loss, recall_at_20 and ndcg_at_20 of
            `EPOCH_USERS` users (None without validation edges).
        metrics: num_epochs, best_epoch (from 0; the last one without validation edges), stopped_early,
            validation_loss (of the best epoch), num_validation_edges, num_skipped_validation_edges (user or item not in
            the graph, or a user with no negative left), curve (`Curve.points`, and
            recall_at_20 and ndcg_at_20 of the epochs).
        item_fold_in: [I, D] float32, of which a user's vector is made anew without training; None where a user's vector
            is no sum over items.
    """

    user_embeddings: Tensor
    item_embeddings: Tensor
    history: tuple[Mapping[str, float | None], ...]
    metrics: Mapping[str, Any]
    item_fold_in: Tensor | None = None


def train_retriever(
    graph: BipartiteGraph,
    held_out: pa.Table,
    settings: RetrieverSettings,
    *,
    seed: int,
    workers: Workers = Workers(),
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[int, dict[str, float | None]], None] | None = None,
) -> TrainedRetriever | None:
    """Train until the validation loss stops falling, and keep the best epoch.

    Source: arXiv:2501.02173v2, section 6: trained "until the evaluation loss converged"; the loss is LightGCN's.

    Args:
        held_out: rows of `INTERACTIONS` with split "validation"; without any, all of `max_epochs` are trained.
        on_epoch: called after each epoch with its number and its entry of the history.

    Returns:
        What rank 0 has; None on the others.

    Raises:
        DataError: there is no triple to learn from.
        ConfigError: the loss is not finite any more.
    """
    triples = _Triples(graph, settings, seed)
    validation = fixed_triples(graph, graph.edges_of(held_out), seed=seed)
    ranked = HeldOutUsers(graph, held_out, max_users=EPOCH_USERS)
    require_memory(graph, settings, workers)
    module = BprLoss(embedding_model(graph.num_nodes, settings, seed=seed), graph, settings.l2, workers)
    best = BestWeights(partial(gathered, module, trained_only=True))
    optimizers = [  # each of its own: one is in parts
        torch.optim.Adam([weight], lr=settings.learning_rate) for weight in module.parameters()
    ]
    training = Training("retriever", module, optimizers, best, workers)
    for taken in optimize(
        training, lambda batch: module(triples.of(batch)), triples.steps(), seed=seed, checkpoints=checkpoints
    ):
        if not taken.step.ends_epoch:
            continue
        entry = {"step": taken.number, "loss": taken.epoch_loss, **module.validated(validation, ranked)}
        best.offer(entry)
        if on_epoch is not None:
            on_epoch(len(best.history) - 1, entry)
        if best.num_since >= settings.patience:
            break
    if workers.rank:
        return None
    model = embedding_model(graph.num_nodes, settings, seed=seed)
    model.load_state_dict({name.removeprefix("gcn."): weight for name, weight in best.weights.items()})
    metrics = _metrics(best, settings, training.curve.points(best.history), validation, held_out)
    vectors = user_and_item_embeddings(model, graph)
    return TrainedRetriever(*vectors, tuple(best.history), metrics, item_fold_in(model, graph))


def _metrics(
    best: BestWeights, settings: RetrieverSettings, points: Mapping[str, Any], validation: Tensor, held_out: pa.Table
) -> dict[str, Any]:
    """What the artifact says of the training."""
    return {
        "num_epochs": len(best.history),
        "best_epoch": best.epoch,
        "stopped_early": len(best.history) < settings.max_epochs,
        "validation_loss": best.loss,
        "num_validation_edges": validation.size(1),
        "num_skipped_validation_edges": held_out.num_rows - validation.size(1),
        "curve": {**points, **{name: values_of(best.history, name) for name in ("recall_at_20", "ndcg_at_20")}},
    }


class BprLoss(nn.Module):
    """The GCN and its loss on workers that hold some columns of the embeddings each.

    Propagation keeps columns apart, so a worker computes 1/W of it and exchanges nothing but the margins of a batch's
    triples, [B] numbers: the sum of what its columns and the others' give.
    """

    def __init__(self, gcn: Gcn, graph: BipartiteGraph, l2: float, workers: Workers) -> None:
        super().__init__()
        self.gcn, self.num_users, self.l2, self.workers = gcn.to(workers.device), graph.num_users, l2, workers
        spread_columns(gcn.embedding, workers)
        self.adjacency = normalized_adjacency(graph).to(workers.device)  # [N, N], no buffer: every worker makes its own
        if gcn.learned is not None and workers.size > 1:
            gcn.learned.register_hook(workers.sum)  # every worker's columns have their part in its gradient

    def forward(self, triples: Tensor) -> Tensor:
        """This worker's part of the mean BPR loss of triples [3, B] with the regulariser; its gradient is the whole's.

        Source: arXiv:2002.02126, equation 15; the regulariser counts the raw embeddings of the batch.
        """
        nodes = self._nodes(triples)
        raw = columns(self.gcn.embedding)  # [N, D]
        part = _margins(self.gcn(self.adjacency, raw), nodes)  # [B]
        margins = part + (self.workers.sum(part) - part.detach())
        loss = -F.logsigmoid(margins).mean()
        of_all = loss - loss.detach() * (1.0 - 1.0 / self.workers.size)  # every worker has it, and it counts once
        return of_all + self.l2 * raw[nodes.flatten()].square().sum() / triples.size(1)

    @torch.no_grad()
    def validated(self, triples: Tensor, ranked: HeldOutUsers) -> dict[str, float | None]:
        """BPR loss of fixed triples without the regulariser, Recall@20 and NDCG@20; None where there are none."""
        embeddings = self.gcn(self.adjacency, columns(self.gcn.embedding))  # [N, D]
        users, items = embeddings[: self.num_users], embeddings[self.num_users :]
        loss = None
        if triples.size(1):
            margins = self.workers.sum(_margins(embeddings, self._nodes(triples)))
            loss = -F.logsigmoid(margins).mean().item()
        return {"validation_loss": loss, **ranked.ranked(lambda rows: self.workers.sum(users[rows] @ items.T))}

    def _nodes(self, triples: Tensor) -> Tensor:
        items_from = torch.tensor([[0], [self.num_users], [self.num_users]])
        return (triples + items_from).to(self.adjacency.device)


def _margins(embeddings: Tensor, nodes: Tensor) -> Tensor:
    """Score of the positive item less that of the negative one, as far as these columns give it [B]."""
    user, positive, negative = embeddings[nodes]  # [B, D] each
    return (user * (positive - negative)).sum(dim=1)


def require_memory(graph: BipartiteGraph, settings: RetrieverSettings, workers: Workers) -> None:
    """
    Raises:
        ConfigError: a worker needs more memory than there is, or there are more workers than columns.
    """
    if workers.size > settings.embedding_dim:
        raise ConfigError(
            f"retriever: {workers.size} workers share the columns of the embeddings, but embedding_dim is "
            f"{settings.embedding_dim}: lower training.retriever.num_workers"
        )
    needed, free = training_bytes(graph, settings, workers.size), free_bytes(workers.device)
    if needed > free:
        raise ConfigError(
            f"retriever: {graph.num_nodes:,} nodes, {graph.num_edges:,} edges and embedding_dim "
            f"{settings.embedding_dim} need {needed / GIB:.1f} GiB in each of {workers.size} workers, and "
            f"{free / GIB:.1f} GiB are free: raise training.retriever.num_workers (on machines of their own), or lower "
            "retriever.embedding_dim or retriever.batch_size"
        )


def training_bytes(graph: BipartiteGraph, settings: RetrieverSettings, num_workers: int) -> int:
    """Memory of one worker's arrays at its peak, from above; below some 2 M edges what else a process takes, up to 0.2
    GiB, is more than the margin (`benchmarks/retriever.py`).
    """
    width = math.ceil(settings.embedding_dim / num_workers)
    nodes = graph.num_nodes * width * FLOAT_BYTES * (4 + 5)  # weight, gradient, two moments; layers and their gradients
    edges = 2 * graph.num_edges * (FLOAT_BYTES + 8) * 2  # the adjacency, once more while it is made
    batch = 3 * min(settings.batch_size, graph.num_edges) * width * FLOAT_BYTES * 4
    triples = 3 * graph.num_edges * 8 * 2
    return nodes + edges + batch + triples


def free_bytes(device: torch.device) -> int:
    """Memory that a process could take on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


class _Triples:
    """Every epoch's triples, drawn when a step asks for them: a resumed training passes over epochs without drawing."""

    def __init__(self, graph: BipartiteGraph, settings: RetrieverSettings, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._graph = graph
        self._seeds = [int(torch.randint(2**62, (1,), generator=generator)) for _ in range(settings.max_epochs)]
        self._num_batches = math.ceil(num_triples(graph) / settings.batch_size)
        self._epoch = -1
        self._batches: Sequence[Tensor] = ()
        if not self._num_batches:
            raise DataError("retriever: 0 triples to learn from: give users who have not rated every item")

    def steps(self) -> Iterator[Step[tuple[int, int]]]:
        """Batches by epoch and number."""
        for epoch in range(len(self._seeds)):
            for number in range(self._num_batches):
                yield Step([(epoch, number)], ends_epoch=number == self._num_batches - 1)

    def of(self, batch: tuple[int, int]) -> Tensor:
        """The triples of a batch: [3, B]."""
        epoch, number = batch
        if epoch != self._epoch:
            triples = sample_triples(self._graph, seed=self._seeds[epoch])
            self._epoch, self._batches = epoch, triples.tensor_split(self._num_batches, dim=1)
        return self._batches[number]
