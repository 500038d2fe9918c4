"""Indexes of similar users: their cost and recall against exact search, and whom `index.min_history` leaves out.

    python -m benchmarks.index --out FILE --workspace DIR
    python -m benchmarks.index --out FILE --factories Flat IVF1024,Flat HNSW32 --generated 1000000

Factories: each is made, saved, mapped and measured as `train_retriever` does it, on the retriever's user vectors of the
workspace, and on generated ones: unit vectors around one centre per 100, with D = 64. Search parameters may follow a
factory after a colon: IVF1024,Flat:nprobe=16. The index and exact search answer the same 1,000 users in one batch.
Histories: with exact search, for each `index.min_history`: what prompts of the validation and test requests show of the
4 similar users, how many asked pairs have their item among it (covered), and what it says about the pairs: the AUC of
the similar users' mean label of the item where it is covered, and of the mean of all their shown ratings.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.hardware import commit, hardware, portable
from optirag_core.artifacts import Workspace
from optirag_core.config.data import IndexSettings, PromptSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.histories import Histories, Shown
from optirag_core.data.splits import requests_for
from optirag_core.evaluation.metrics import has_both_classes
from optirag_core.prompting.assembly import requests_from
from optirag_core.retrieval.faiss_library import load_faiss
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.recall import measured
from optirag_core.retrieval.vectors import load_vectors, save_vectors

FACTORIES = ("Flat", "IVF256,Flat", "HNSW32", "PQ32", "IVF256,PQ32")
WIDTH, PER_CENTRE, NOISE = 64, 100, 0.1
PROMPT = PromptSettings()


class AskedPair(NamedTuple):
    """A pair, and what its prompt shows of the similar users."""

    item_id: str
    label: int
    shown: Sequence[Shown]


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    load_faiss().omp_set_num_threads(given.threads)
    result: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.index", *portable(sys.argv[1:])]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware("cpu"),
    }
    if given.workspace:
        workspace = Workspace(given.workspace)
        retriever, dataset = workspace.open("retriever"), workspace.open("dataset")
        retriever.require_parent(dataset)
        result["retriever"] = [_factory(retriever.path, factory, given) for factory in given.factories]
        threshold = dataset.manifest["config"]["dataset"]["like_threshold"]
        result["min_history"] = _histories(retriever.path, dataset.path, given.min_history, threshold)
    if given.generated:
        with tempfile.TemporaryDirectory() as folder:
            ids = pa.array(np.char.zfill(np.arange(given.generated).astype(str), 9).tolist(), pa.string())
            save_vectors(Path(folder), "user", ids, _generated(given.generated))
            result["generated"] = [_factory(Path(folder), factory, given) for factory in given.factories]
    text = json.dumps(result, indent=1)
    given.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _factory(vectors: Path, factory: str, given: argparse.Namespace) -> dict[str, Any]:
    """Cost and recall of one index, mapped from its file as prompt builders do."""
    name, _, parameters = factory.partition(":")
    settings = IndexSettings(
        factory=name, search_parameters=parameters or None, candidates=given.candidates, gpu=given.gpu
    )
    user_ids, embeddings = load_vectors(vectors, "user")
    started = time.perf_counter()
    index = UserIndex.build(user_ids, embeddings, settings)
    seconds = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        metrics = measured(UserIndex.load(vectors, Path(folder)))
    return {
        "factory": name,
        "search_parameters": settings.search_parameters,
        "build_seconds": seconds,
        "bytes": size,
        **metrics,
        "times_faster_than_exact": metrics["queries_per_s"] / metrics["exact_queries_per_s"],
    }


def _generated(num_users: int) -> Tensor:
    """[num_users, WIDTH] clustered vectors of length 1."""
    chance = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(-(-num_users // PER_CENTRE), WIDTH, generator=chance), dim=-1)
    vectors = NOISE * torch.randn(num_users, WIDTH, generator=chance)
    vectors += centres[torch.randint(len(centres), (num_users,), generator=chance)]
    return torch.nn.functional.normalize(vectors, dim=-1)


def _histories(
    retriever: Path, dataset: Path, bounds: Sequence[int], like_threshold: float
) -> list[dict[str, float | int | None]]:
    """One entry per `index.min_history`."""
    user_ids, embeddings = load_vectors(retriever, "user")
    histories, interactions = Histories.open(dataset), Dataset.load(dataset).interactions
    requests = pa.concat_tables([requests_for(interactions, split) for split in ("validation", "test")])
    active = histories.activity(user_ids)
    entries = []
    for bound in bounds:
        index = UserIndex.build(user_ids, embeddings, IndexSettings(min_history=bound), num_interactions=active)
        pairs = _asked(index, histories, requests)
        share = len(index.rows) / len(user_ids)
        entries.append({"min_history": bound, "indexed_share": share, **_said(pairs, like_threshold)})
    return entries


def _asked(index: UserIndex, histories: Histories, requests: pa.Table) -> list[AskedPair]:
    """All pairs of the requests."""
    pairs = []
    asked = requests_from(requests)
    similar = index.similar_batch([request.user_id for request in asked], PROMPT.num_similar_users)
    for request, neighbours, labels in zip(asked, similar, requests["labels"].to_pylist(), strict=True):
        past = histories.past(
            request.user_id, as_of=request.as_of, as_of_position=request.as_of_position, hide=set(request.item_ids)
        )
        shown = [
            entry
            for neighbour in neighbours
            for entry in histories.of_similar(neighbour.user_id, past, limit=PROMPT.max_similar_history)
        ]
        pairs += [AskedPair(item_id, label, shown) for item_id, label in zip(request.item_ids, labels, strict=True)]
    return pairs


def _said(pairs: Sequence[AskedPair], like_threshold: float) -> dict[str, Any]:
    """What the shown entries say about the pairs that are asked."""
    about_item = [(pair, [entry for entry in pair.shown if entry.item_id == pair.item_id]) for pair in pairs]
    liked = [
        (pair.label, np.mean([entry.rating > like_threshold for entry in entries]))
        for pair, entries in about_item
        if entries
    ]
    ratings = [(pair.label, np.mean([entry.rating for entry in pair.shown])) for pair in pairs if pair.shown]
    return {
        "pairs": len(pairs),
        "shown_entries_per_pair": float(np.mean([len(pair.shown) for pair in pairs])),
        "covered_pairs": len(liked),
        "covered_share": len(liked) / len(pairs),
        "auc_of_mean_label_where_covered": _auc(liked),
        "auc_of_mean_shown_rating": _auc(ratings),
    }


def _auc(pairs: Sequence[tuple[int, float]]) -> float | None:
    labels, scores = np.array([label for label, _ in pairs]), [score for _, score in pairs]
    return float(roc_auc_score(labels, scores)) if has_both_classes(labels) else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--workspace", help="with a data set and a retriever")
    parser.add_argument("--factories", nargs="*", default=FACTORIES)
    parser.add_argument("--min_history", type=int, nargs="*", default=[1, 2, 3, 5, 10])
    parser.add_argument("--candidates", type=int, default=IndexSettings().candidates, help="index.candidates")
    parser.add_argument("--generated", type=int, default=0, help="generated vectors, too: this many")
    parser.add_argument("--gpu", action="store_true", help="train and fill on a GPU")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
