"""The GCN against torch_geometric's LightGCN on the same graph, and its cost against the graph's size.

    python -m benchmarks.retriever --out benchmarks/results/retriever.json --workspace DIR
    python -m benchmarks.retriever --out FILE --sizes 200000 1000000

Peer: the same weights, triples and optimiser; medians of alternating steps, and the losses of the first epochs. It is
given the graph as its own example does (edge_index), and in the form that it propagates fastest (CSR). The graph is
that of the workspace's data set, or a generated one of 200,000 edges.
Size: an epoch of 20 steps on generated graphs, each in a process of its own, with the peak of its memory above that of
the graph itself. Users have 20 edges, items 67 on average, of which some are popular.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch_geometric.nn.models import LightGCN

from benchmarks.hardware import commit, hardware, portable
from optirag_core.artifacts import Workspace
from optirag_core.config.data import RetrieverSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import INTERACTIONS
from optirag_core.retrieval.gcn import Gcn
from optirag_core.retrieval.graph import BipartiteGraph, build_graph, normalized_adjacency
from optirag_core.retrieval.triples import sample_triples
from optirag_core.training.retriever import BprLoss, train_retriever, training_bytes
from optirag_core.training.workers import Workers

PER_USER, PER_ITEM, EPOCH_STEPS = 20, 67, 20
GIB = 2**30
SETTINGS = RetrieverSettings(learning_rate=0.01, batch_size=16384)


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    result = {
        "command": " ".join(["python -m benchmarks.retriever", *portable(sys.argv[1:])]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware("cpu"),
        "settings": SETTINGS.model_dump(mode="json"),
        "peer": _against_peer(_graph_of(given.workspace), given.steps, given.epochs),
        "size": [_alone(_sized, edges, given.threads) for edges in given.sizes],
    }
    text = json.dumps(result, indent=1)
    given.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    if given.sizes:
        plot(result["size"], given.out.with_suffix(".png"))


def _against_peer(graph: BipartiteGraph, num_steps: int, num_epochs: int) -> dict[str, Any]:
    """Seconds per step, alternating, and the losses of the same steps."""
    users, items = graph.user_index, graph.item_index + graph.num_users
    edge_index = torch.stack([torch.cat([users, items]), torch.cat([items, users])])
    steps = {
        "ours": _ours(graph),
        "torch_geometric, CSR": _peer(graph, normalized_adjacency(graph), normalize=False),
        "torch_geometric, edge_index": _peer(graph, edge_index, normalize=True),
    }
    batches = [
        batch
        for epoch in range(num_epochs)
        for batch in sample_triples(graph, seed=epoch).split(SETTINGS.batch_size, dim=1)
    ]
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for number, batch in enumerate(batches):
        for name, step in steps.items():
            if number >= num_steps and name != "ours" and name != "torch_geometric, CSR":
                continue  # its losses are those of CSR, and it is slow
            started = time.perf_counter()
            losses[name].append(step(batch))
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(each[2:num_steps]) for name, each in seconds.items()}
    ours, peer = (np.array(losses[name]) for name in ("ours", "torch_geometric, CSR"))
    per_epoch = len(batches) // num_epochs
    return {
        "users": graph.num_users,
        "items": graph.num_items,
        "edges": graph.num_edges,
        "seconds_per_step": medians,
        "times_faster": {name: each / medians["ours"] for name, each in medians.items() if name != "ours"},
        "epoch_losses": {
            name: np.array(each[: per_epoch * num_epochs]).reshape(num_epochs, -1).mean(axis=1).tolist()
            for name, each in (("ours", ours), ("torch_geometric, CSR", peer))
        },
        "largest_difference_of_a_step's_loss": float(np.abs(ours - peer).max()),
        "profile_of_ours": _profile(graph),
    }


def _ours(graph: BipartiteGraph) -> Callable[[Tensor], float]:
    module = BprLoss(Gcn(graph.num_nodes, SETTINGS, seed=0), graph, SETTINGS.l2, Workers())
    return _step(list(module.parameters()), module)


def _peer(graph: BipartiteGraph, edges: Tensor, *, normalize: bool) -> Callable[[Tensor], float]:
    alpha = torch.tensor([0.0, *[1.0 / SETTINGS.num_layers] * SETTINGS.num_layers])
    torch.manual_seed(0)  # the weights of ours
    model = LightGCN(graph.num_nodes, SETTINGS.embedding_dim, SETTINGS.num_layers, alpha=alpha, normalize=normalize)

    def loss_of(triples: Tensor) -> Tensor:
        users, positives, negatives = triples + torch.tensor([[0], [graph.num_users], [graph.num_users]])
        pairs = torch.stack([users.repeat(2), torch.cat([positives, negatives])])
        ranks = model(edges, pairs).chunk(2)
        nodes = torch.cat([users, positives, negatives])
        return model.recommendation_loss(*ranks, node_id=nodes, lambda_reg=SETTINGS.l2)

    return _step(list(model.parameters()), loss_of)


def _step(weights: list[Tensor], loss_of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], float]:
    optimizer = torch.optim.Adam(weights, lr=SETTINGS.learning_rate)

    def step(batch: Tensor) -> float:
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _profile(graph: BipartiteGraph) -> dict[str, float]:
    """Share of one step's time in the operations that take most of it."""
    step, batch = _ours(graph), sample_triples(graph, seed=0)[:, : SETTINGS.batch_size]
    step(batch)
    with torch.profiler.profile() as profile:
        step(batch)
    times = {each.key: each.self_cpu_time_total for each in profile.key_averages()}
    total = sum(times.values())
    return {name: times[name] / total for name in sorted(times, key=times.__getitem__, reverse=True)[:6]}


def _sized(num_edges: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    graph = _generated(num_edges)
    settings = SETTINGS.model_copy(update={"batch_size": -(-graph.num_edges // EPOCH_STEPS), "max_epochs": 1})
    nobody = INTERACTIONS.empty_table()
    before = _peak_bytes()
    started = time.perf_counter()
    train_retriever(graph, nobody, settings, seed=0)
    seconds = time.perf_counter() - started
    peak = _peak_bytes()
    return {
        "users": graph.num_users, "items": graph.num_items, "edges": graph.num_edges, "steps": EPOCH_STEPS,
        "epoch_seconds": seconds, "peak_gib": peak / GIB, "above_the_graph_gib": (peak - before) / GIB,
        "expected_gib": training_bytes(graph, settings, 1) / GIB,
    }  # fmt: skip


def _peak_bytes() -> int:
    """Of this process alone; `getrusage` would begin with what its parent held."""
    [line] = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _generated(num_edges: int) -> BipartiteGraph:
    """Ids as strings; the square of a uniform number makes some items popular."""
    chance = np.random.default_rng(0)
    num_users, num_items = num_edges // PER_USER, num_edges // PER_ITEM
    users = np.repeat(np.arange(num_users), PER_USER)
    items = (chance.random(len(users)) ** 2 * num_items).astype(np.int64)
    edges = np.unique(users * num_items + items)
    users, items = edges // num_items, edges % num_items
    known, items = np.unique(items, return_inverse=True)
    return BipartiteGraph(
        pa.array([f"u{number:09}" for number in range(num_users)]),
        pa.array([f"i{number:09}" for number in known.tolist()]),
        torch.from_numpy(users),
        torch.from_numpy(items),
    )


def _graph_of(workspace: str | None) -> BipartiteGraph:
    if workspace is None:
        return _generated(200_000)
    return build_graph(Dataset.load(Workspace(workspace).open("dataset").path).interactions)


def _alone(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run in a process of its own, so that its peak is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def plot(sizes: Sequence[dict[str, Any]], path: Path) -> None:
    """Cost against size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4))
    edges = [size["edges"] for size in sizes]
    lines = {
        "seconds per epoch of 20 steps": {"measured": "epoch_seconds"},
        "GiB above the graph": {"measured": "above_the_graph_gib", "what the job asks for": "expected_gib"},
    }
    for place, (label, names) in enumerate(lines.items(), start=1):
        axes = figure.add_subplot(1, 2, place, xscale="log", yscale="log", xlabel="edges", ylabel=label)
        for style, (name, key) in zip(("o-", "s--"), names.items(), strict=False):
            axes.plot(edges, [size[key] or float("nan") for size in sizes], style, label=name)
        axes.legend()
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, with a .png beside it")
    parser.add_argument("--workspace", help="with a data set, whose graph the peer gets too")
    parser.add_argument("--steps", type=int, default=12, help="steps that are timed; the first two are not counted")
    parser.add_argument("--epochs", type=int, default=3, help="whose losses are compared")
    parser.add_argument("--sizes", type=int, nargs="*", default=[200_000, 1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
