"""The cells of a study, and what needs none -> the document."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
import transformers

from optirag_core.baselines.artifact import read_baselines
from optirag_core.config.reproduction import PARTS
from optirag_core.data.dataset import Dataset
from optirag_core.data.schema import PAIRS
from optirag_core.data.splits import labelled_pairs
from optirag_core.engine.certificate import Calibration
from optirag_core.evaluation.known import Known
from optirag_core.evaluation.leak_audit import audit
from optirag_core.evaluation.metrics import binary_metrics
from optirag_core.evaluation.predictors import PAIR_KEY, PREDICTORS, predictions
from optirag_core.evaluation.reproduction.cells import LLM_RATES, RATES, RETRIEVAL
from optirag_core.evaluation.reproduction.document import Document, Figure, Section
from optirag_core.evaluation.reproduction.measurement import Answer, Measurement
from optirag_core.evaluation.reproduction.opening_sections import leaks, mean_over_deals, table1
from optirag_core.evaluation.reproduction.ours import ours
from optirag_core.evaluation.reproduction.paper import column_of
from optirag_core.evaluation.reproduction.results import Results, aligned
from optirag_core.evaluation.reproduction.tables import SECTIONS
from optirag_core.evaluation.slices import Traits
from optirag_core.inference.requests import test_requests
from optirag_core.retrieval.vectors import load_vectors
from ray_jobs.evaluate import NAMES, SPLITS
from ray_jobs.reproduction.study import Study

CONTROLS = ("user mean", "item mean", "logistic regression", "strong regression")
FLOORS = {name: PREDICTORS[name] for name in CONTROLS}
NUM_DEALS = 8
ASKED, BASELINE = "asked", "score"
ACCELERATOR = "accelerator_type:"
"""Begins the names of Ray's resources that say which GPUs there are."""


def document_of(study: Study, cells: Mapping[str, Measurement]) -> Document:
    """Write the sections that `reproduce.parts` names, in the paper's order."""
    settings, artifacts = study.settings, study.artifacts
    dataset = Dataset.load(artifacts["dataset"].path)
    pairs = labelled_pairs(test_requests(dataset, settings.exit_features.test_users, settings.seed))
    known = Known.of(dataset, artifacts["evidence"].metrics["attributes"])
    results, pairs = _results(study, cells, known, pairs)
    return Document(
        title=" ".join(filter(None, ("OptiRAG-Rec on", NAMES[settings.dataset.source], settings.dataset.category))),
        lead=tuple(_lead(study, dataset, len(pairs))),
        sections=tuple(_sections(study, results, dataset, known, pairs)),
        provenance={
            **{f"{kind} ({artifact.version})": artifact.digest for kind, artifact in artifacts.by_kind.items()},
            "seed": str(settings.seed),
            "code version": artifacts["llm"].manifest["code_version"],
            **_measured_on(),
        },
    )


def _results(study: Study, cells: Mapping[str, Measurement], known: Known, pairs: pa.Table) -> tuple[Results, pa.Table]:
    """Everything at the pairs that all cells have, and these."""
    settings = study.settings
    of_pairs = {name: cell for name, cell in cells.items() if name not in (RATES, LLM_RATES, RETRIEVAL)}
    seeded = _baselines(study) if "table2" in settings.reproduce.parts else {}
    for model, seeds in seeded.items():
        of_pairs |= {f"{model}/{seed}": each for seed, each in seeds.items()}
    asked = Measurement(*(pairs[name].to_numpy() for name in (*PAIR_KEY.names, "label")))
    found = aligned(of_pairs | {ASKED: asked})
    asked = found.pop(ASKED)
    row = {pair: number for number, pair in enumerate(_keys(pairs))}
    pairs = pairs.take([row[pair] for pair in asked.pairs])
    baselines = {
        model: np.stack([found.pop(f"{model}/{seed}").answers[BASELINE].scores for seed in seeds])
        for model, seeds in seeded.items()
    }
    results = Results(
        cells=found,
        rates=cells.get(RATES),
        llm_rates=cells.get(LLM_RATES),
        times=cells[RETRIEVAL].facts if RETRIEVAL in cells else {},
        baselines=baselines,
        floors=predictions(known, pairs),
        users=asked.users,
        labels=asked.labels,
        paper=column_of(settings.dataset),
        seed=settings.seed,
    )
    return results, pairs


def _baselines(study: Study) -> dict[str, dict[int, Measurement]]:
    """Model -> seed -> its scores of the test pairs."""
    found: dict[str, dict[int, Measurement]] = {}
    for model, table in read_baselines(study.settings, study.artifacts).items():
        for seed in table["seed"].unique().to_pylist():
            own = table.filter(pc.equal(table["seed"], seed))
            users, items, labels = (own[name].to_numpy() for name in (*PAIR_KEY.names, "label"))
            scores = own["score"].to_numpy().astype(np.float64)
            answer = Answer(scores, np.zeros(len(scores), dtype=np.int16))
            found.setdefault(model, {})[seed] = Measurement(users, items, labels, {BASELINE: answer})
    return found


def _sections(
    study: Study, results: Results, dataset: Dataset, known: Known, pairs: pa.Table
) -> Iterator[Section]:  # fmt: skip
    settings, artifacts = study.settings, study.artifacts
    for part in PARTS:
        if part not in settings.reproduce.parts:
            continue
        if part == "leaks":
            yield leaks(audit(settings, artifacts), _controls(results, known, pairs))
        elif part == "table1":
            yield table1(dataset)
        elif part == "ours":
            user_ids, _ = load_vectors(artifacts["retriever"].path, "user")
            cold_start = ~np.isin(results.users, user_ids.to_numpy(zero_copy_only=False))
            traits = Traits.of(pairs.select(PAIRS.names), dataset.interactions, cold_start)
            yield ours(results, traits, Calibration.load(artifacts["exit_policy"].path))
        else:
            yield SECTIONS[part](results, settings.reproduce)


def _controls(results: Results, known: Known, pairs: pa.Table) -> list[tuple[str, Figure]]:
    """The floors, learned from ratings that were dealt out among the known interactions at random, again and again."""
    aucs: dict[str, list[float]] = {name: [] for name in CONTROLS}
    for deal in range(NUM_DEALS):
        rows = known.interactions
        order = np.random.default_rng([results.seed, deal]).permutation(len(rows))
        for name in ("rating", "label"):
            rows = rows.set_column(rows.column_names.index(name), rows.schema.field(name), rows[name].take(order))
        for name, scores in predictions(replace(known, interactions=rows), pairs, FLOORS).items():
            auc = binary_metrics(results.labels, scores).auc
            if auc is not None:
                aucs[name].append(auc)
    return [(name, mean_over_deals(each)) for name, each in aucs.items() if each]


def _lead(study: Study, dataset: Dataset, num_pairs: int) -> Iterator[str]:
    settings, artifacts = study.settings, study.artifacts
    config = json.loads((artifacts["llm"].path / "config.json").read_text(encoding="utf-8"))
    trained, made = artifacts["llm"].metrics, settings.dataset
    scratch = settings.llm.init == "scratch"
    origin = "trained from scratch for this study" if scratch else f"tuned from {trained['pretrained']}"
    yield (
        f"{num_pairs:,} pairs of test users. Liked: a rating above {made.like_threshold:g}. Split: "
        f"{SPLITS[dataset.info['split_method']]}"
        + ("." if dataset.info["timed"] else "; the publisher gives no times, so the order is a seeded shuffle.")
    )
    yield (
        f"The LLM is a {config['architectures'][0]} of {trained['num_parameters']:,} parameters and "
        f"{config['num_hidden_layers']} layers, {origin} on {trained['num_answers']:,} answers. The paper's figures "
        "are of Vicuna-7B: a smaller model says how the parts compare on this data, and nothing about that one."
    )
    yield (
        "One seed but where a table says otherwise. Intervals: 95 %, bootstrap over whole users. Differences: paired, "
        "on the same draws, corrected by Holm for all comparisons of their table."
    )


def _measured_on() -> dict[str, str]:
    """What pairs per second are of."""
    resources = ray.cluster_resources()
    devices = [f"{resources.get('CPU', 0.0):g} CPUs", f"{resources.get('GPU', 0.0):g} GPUs"]
    devices += sorted(name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR))
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "cluster": ", ".join(devices),
        "libraries": f"torch {torch.__version__}, transformers {transformers.__version__}, ray {ray.__version__}",
    }


def _keys(pairs: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(*(pairs[name].to_numpy() for name in PAIR_KEY.names), strict=True)
