"""Train the retriever's embeddings with the BPR loss, data-parallel over sampled triples.

Shape legend: `U` users, `I` items, `N` nodes = U + I (users first), `B` triples, `D` embedding width.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch_geometric.nn.models import LightGCN

from optirag_core.config.data import RetrieverSettings
from optirag_core.errors import DataError
from optirag_core.retrieval.gcn import build_model, user_and_item_embeddings
from optirag_core.retrieval.graph import BipartiteGraph, normalized_adjacency
from optirag_core.retrieval.triples import fixed_triples, num_triples, sample_triples
from optirag_core.training.checkpoints import Checkpoints
from optirag_core.training.loop import Step, optimize
from optirag_core.training.selection import BestWeights
from optirag_core.training.state import Training
from optirag_core.training.workers import Workers, gathered, parallelize


@dataclass(frozen=True)
class TrainedRetriever:
    """Embeddings of the best epoch, and how training went.

    Attributes:
        user_embeddings: [U, D] float32, each of length 1.
        item_embeddings: [I, D] float32.
        history: one mapping per epoch: loss, validation_loss (None without validation edges).
        metrics: num_epochs, best_epoch (from 0; the last one without validation edges), stopped_early,
            validation_loss (of the best epoch), num_validation_edges, num_skipped_validation_edges (user or item not in
            the graph, or a user with no negative left).
    """

    user_embeddings: Tensor
    item_embeddings: Tensor
    history: tuple[Mapping[str, float | None], ...]
    metrics: Mapping[str, float | int | bool | None]


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
    loss = BprLoss(build_model(graph, settings, seed=seed), graph, settings.l2, workers.device)
    module = parallelize(loss, workers)
    best = BestWeights(partial(gathered, module, trained_only=True))
    optimizer = torch.optim.Adam(module.parameters(), lr=settings.learning_rate, fused=True)

    def loss_of(batch: tuple[int, int]) -> Tensor:
        rows = triples.of(batch)  # [3, B]
        mine, counts = workers.share(rows.T)
        return counts * module(mine.T) * (len(mine) / rows.size(1))

    for taken in optimize(
        Training("retriever", module, [optimizer], best, workers), loss_of, triples.steps(),
        seed=seed, checkpoints=checkpoints,
    ):  # fmt: skip
        if not taken.step.ends_epoch:
            continue
        entry = {"loss": taken.epoch_loss, "validation_loss": loss.validation_loss(validation, workers)}
        best.offer(entry)
        if on_epoch is not None:
            on_epoch(len(best.history) - 1, entry)
        if len(best.history) > best.epoch + settings.patience:
            break
    if workers.rank:
        return None
    set_model_state_dict(loss, best.weights, options=StateDictOptions(strict=False))
    metrics = {
        "num_epochs": len(best.history),
        "best_epoch": best.epoch,
        "stopped_early": len(best.history) < settings.max_epochs,
        "validation_loss": best.loss,
        "num_validation_edges": validation.size(1),
        "num_skipped_validation_edges": held_out.num_rows - validation.size(1),
    }
    return TrainedRetriever(*user_and_item_embeddings(loss.model.cpu(), graph), tuple(best.history), metrics)


class BprLoss(nn.Module):
    """The GCN as far as its loss needs it, in one forward."""

    def __init__(self, model: LightGCN, graph: BipartiteGraph, l2: float, device: torch.device) -> None:
        super().__init__()
        self.model, self.num_users, self.l2 = model, graph.num_users, l2
        self.adjacency = normalized_adjacency(graph).to(device)  # [N, N], no buffer: every worker makes its own

    def forward(self, triples: Tensor) -> Tensor:
        """Mean BPR loss of triples [3, B], with the regulariser."""
        users, positives, negatives = self._nodes(triples)
        positive_logit, negative_logit = self._logits(users, positives, negatives)
        nodes = torch.cat([users, positives, negatives])
        return self.model.recommendation_loss(positive_logit, negative_logit, nodes, lambda_reg=self.l2)

    @torch.no_grad()
    def validation_loss(self, triples: Tensor, workers: Workers) -> float | None:
        """BPR loss of fixed triples without the regulariser, as rank 0 computes it; None where there are none.

        Rounding may differ between machines, the decision to stop may not.
        """
        if triples.size(1) == 0:
            return None
        positive_logit, negative_logit = self._logits(*self._nodes(triples))
        loss = -F.logsigmoid(positive_logit - negative_logit).mean()
        return workers.sum(loss if workers.rank == 0 else torch.zeros_like(loss)).item()

    def _nodes(self, triples: Tensor) -> Tensor:
        items_from = torch.tensor([[0], [self.num_users], [self.num_users]])
        return (triples + items_from).to(self.adjacency.device)

    def _logits(self, users: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        pairs = torch.stack([users.repeat(2), torch.cat([positives, negatives])])  # [2, 2B]
        return self.model(self.adjacency, pairs).chunk(2)


class _Triples:
    """Every epoch's triples, drawn when a step asks for them: a resumed training passes over epochs without drawing."""

    def __init__(self, graph: BipartiteGraph, settings: RetrieverSettings, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._graph = graph
        self._seeds = [int(torch.randint(2**62, (1,), generator=generator)) for _ in range(settings.max_epochs)]
        self._num_batches = math.ceil(num_triples(graph) / settings.batch_size)
        self._epoch, self._batches = -1, ()
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
