"""Our CTR models beside RecBole's on MovieLens-100K, which that library's wheel carries: same pairs, fields and budget.

    pip install --target DIR --no-deps recbole==1.2.1 colorlog==4.7.2 colorama==0.4.4 texttable tabulate thop \
        plotly narwhals pandas==2.3.3 pytz tzdata tensorboard absl-py markdown werkzeug tensorboard-data-server grpcio
    PYTHONPATH=DIR python -m benchmarks.ctr_models --out FILE

The library asks for a Ray of 2023 and for pandas 2, so that it goes beside what the project installs, not among it.

The protocol is that of its own quick start for these models, not that of our studies: liked is a rating of 4 or more,
and the split is 8 : 1 : 1 at random, so that a model has seen ratings later than those it is asked about. No model
reads a history; fields are user, item, the user's age, gender and occupation, and the year of release. Each model of
each library gets the same points of our grid, stops after the first epoch without a better validation loss, and is
asked for the test pairs once, with the trial of the least validation loss. The library's DCNv2 normalizes its MLP's
layers by batch, which none of its others does and neither does ours: it runs without that as well.
"""

import argparse
import importlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, chdir, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from benchmarks.hardware import commit, hardware, portable
from optirag_core.baselines.batch import Vocabularies
from optirag_core.baselines.columns import frequent_ids
from optirag_core.baselines.samples import Pairs, Samples
from optirag_core.baselines.search import Hyperparameters, drawn
from optirag_core.baselines.training import train_baseline
from optirag_core.config.baselines import BaselineName, BaselinesSettings

CARRIED, DATASET = "ml-100k", "pairs"  # under its own name the library would look into its own folder
FIELDS = ("user_id", "item_id", "age", "gender", "occupation", "release_year")
LIKED_FROM = 4
SPLITS = {"train": 0.8, "valid": 0.1, "test": 0.1}
WITHOUT_HISTORY: tuple[BaselineName, ...] = ("DeepFM", "AutoInt", "DCNv2", "WuKong", "GDCN", "EulerNet")

NUMPY_1 = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "object_": np.object_}

PLAIN_DCNV2 = "DCNv2 without batch normalization"

PEERS: Mapping[str, tuple[str, Callable[[BaselinesSettings, Hyperparameters], dict[str, Any]]]] = {
    "DeepFM": ("DeepFM", lambda settings, point: _deep(settings, point)),
    "AutoInt": (
        "AutoInt",
        lambda settings, point: {
            **_deep(settings, point), "n_layers": point.num_layers, "num_heads": 2,
            "attention_size": settings.embedding_dim, "dropout_probs": [0.0, point.dropout, point.dropout],
        },
    ),
    "DCNv2": ("DCNV2", lambda settings, point: _crossed(settings, point)),
    PLAIN_DCNV2: ("DCNV2", lambda settings, point: _crossed(settings, point)),
    "EulerNet": (
        "EulerNet",
        lambda _, point: {
            "order_list": [len(FIELDS)] * point.num_layers, "drop_ex": point.dropout, "drop_im": point.dropout,
            "reg_weight": 0.0,
        },
    ),
}  # fmt: skip
"""Our name -> the library's, and its settings for a point of our grid."""


def main() -> None:
    given = _arguments()
    torch.set_num_threads(given.threads)
    settings = BaselinesSettings(num_trials=given.trials)
    rows = _rows(_carried())
    ours: dict[str, list[dict[str, float | None]]] = {}
    peers: dict[str, list[dict[str, float]]] = {}
    for seed in given.seeds:
        splits = split_at_random(rows, seed)
        samples = samples_of(splits, settings.min_count)
        for name in WITHOUT_HISTORY:
            metrics = train_baseline(samples, name, settings, seed).metrics(samples)
            ours.setdefault(name, []).append({key: metrics[key] for key in ("test_auc", "test_log_loss", "seconds")})
        with tempfile.TemporaryDirectory() as folder, chdir(folder):  # the library logs where it stands
            _write_atomic(splits, Path(folder))
            for name in PEERS:
                peers.setdefault(name, []).append(_peer(name, settings, Path(folder), seed))
        print(json.dumps({"seed": seed, "ours": ours, "RecBole": peers}), flush=True)
    result = {
        "command": " ".join(["python -m benchmarks.ctr_models", *portable(sys.argv[1:])]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware("cpu"),
        "library": f"recbole {importlib.import_module('recbole').__version__}",
        "pairs": len(rows),
        "liked": float(rows["label"].mean()),
        "settings": settings.model_dump(mode="json"),
        "seeds": given.seeds,
        "ours": ours,
        "RecBole": peers,
        "medians_of_test_auc": {
            "ours": {name: statistics.median(each["test_auc"] or 0.0 for each in of) for name, of in ours.items()},
            "RecBole": {name: statistics.median(each["test_auc"] for each in of) for name, of in peers.items()},
        },
    }
    text = json.dumps(result, indent=1)
    given.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def split_at_random(rows: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """Train, valid and test, 8 : 1 : 1 whatever the user."""
    order = np.random.default_rng(seed).permutation(len(rows))
    ends = np.cumsum([round(share * len(rows)) for share in list(SPLITS.values())[:-1]])
    return {
        name: rows.iloc[chosen].reset_index(drop=True)
        for name, chosen in zip(SPLITS, np.split(order, ends), strict=True)
    }


def samples_of(splits: Mapping[str, pd.DataFrame], min_count: int) -> Samples:
    """What our models read: ids of the fields, and nobody's past."""
    rows = pd.concat(splits.values(), ignore_index=True)
    train = np.arange(len(rows)) < len(splits["train"])
    columns = [frequent_ids(rows[name].factorize()[0], train, min_count) for name in FIELDS]
    parts = np.split(np.arange(len(rows)), np.cumsum([len(splits[name]) for name in SPLITS])[:-1])

    def pairs(chosen: np.ndarray) -> Pairs:
        nothing = torch.zeros(len(chosen), dtype=torch.int64)
        fields = torch.from_numpy(np.column_stack([ids[chosen] for ids in columns]))
        return Pairs(fields, nothing, nothing, torch.tensor(rows["label"].to_numpy()[chosen], dtype=torch.float32))

    trained, validated, tested = map(pairs, parts)
    return Samples(
        vocabularies=Vocabularies(tuple(int(ids.max()) + 1 for ids in columns), max_history=1),
        past_items=torch.zeros(1, dtype=torch.int32),
        past_answers=torch.zeros(1, dtype=torch.int8),
        train=trained,
        validation=validated,
        test=tested,
        test_table=pa.table({name: rows[name].to_numpy()[parts[-1]] for name in ("user_id", "item_id", "label")}),
    )


def _carried() -> Path:
    """The folder of the data in the library's wheel."""
    [place] = importlib.import_module("recbole").__path__
    return Path(place) / "dataset_example" / CARRIED


def _rows(folder: Path) -> pd.DataFrame:
    """Every rating with its fields, as text, and its label."""

    def table(kind: str) -> pd.DataFrame:
        read = pd.read_csv(folder / f"{CARRIED}.{kind}", sep="\t", dtype=str, keep_default_na=False)
        return read.rename(columns=lambda column: column.split(":")[0])

    rows = table("inter").merge(table("user"), on="user_id").merge(table("item"), on="item_id")
    rows["label"] = (rows["rating"].astype(float) >= LIKED_FROM).astype(float)
    return rows[[*FIELDS, "label"]]


def _write_atomic(splits: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """The splits as the library reads them, all fields in its file of interactions."""
    place = folder / DATASET
    place.mkdir()
    kinds = {**{name: f"{name}:token" for name in FIELDS}, "label": "label:float"}
    for name, rows in splits.items():
        rows.rename(columns=kinds).to_csv(place / f"{DATASET}.{name}.inter", sep="\t", index=False)


def _peer(name: str, settings: BaselinesSettings, folder: Path, seed: int) -> dict[str, float]:
    """The library's model with the trial of the least validation loss."""
    library, of_point = PEERS[name]
    trials = []
    for point in drawn(settings, seed):
        config = {
            "data_path": str(folder), "benchmark_filename": list(SPLITS), "checkpoint_dir": str(folder),
            "load_col": {"inter": [*FIELDS, "label"]}, "LABEL_FIELD": "label", "seed": seed,
            "train_neg_sample_args": None, "eval_args": {"order": "RO", "group_by": None, "mode": "labeled"},
            "metrics": ["AUC", "LogLoss"], "valid_metric": "LogLoss", "metric_decimal_place": 6,
            "epochs": settings.max_epochs, "stopping_step": settings.patience - 1,
            "train_batch_size": settings.batch_size, "eval_batch_size": settings.batch_size,
            "learning_rate": point.learning_rate, "weight_decay": point.weight_decay,
            "embedding_size": settings.embedding_dim, "worker": 0, "gpu_id": "", "show_progress": False,
            **of_point(settings, point),
        }  # fmt: skip
        with _plain_dcnv2() if name == PLAIN_DCNV2 else nullcontext():
            trials.append(_run(library, config))
    best = min(trials, key=lambda trial: trial["best_valid_result"]["logloss"])["test_result"]
    return {"test_auc": float(best["auc"]), "test_log_loss": float(best["logloss"])}


def _run(model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The library, with the names of NumPy 1 that it asks for, and its own checkpoints trusted."""
    for old, new in (
        ("float_", np.float64),
        ("complex_", np.complex128),
        ("unicode_", np.str_),
        ("object_", np.object_),
    ):
        if old not in np.__dict__:
            setattr(np, old, new)
    with mock.patch.object(torch, "load", partial(torch.load, weights_only=False)):
        run = importlib.import_module("recbole.quick_start").run_recbole
        found: dict[str, Any] = run(model=model, dataset=DATASET, config_dict=dict(config))
    return found


def _plain_dcnv2() -> AbstractContextManager[Any]:
    """The library's DCNv2 with the MLP of its other models."""
    module = importlib.import_module("recbole.model.context_aware_recommender.dcnv2")
    layers = module.MLPLayers
    return mock.patch.object(module, "MLPLayers", lambda sizes, dropout, bn: layers(sizes, dropout=dropout))


def _deep(settings: BaselinesSettings, point: Hyperparameters) -> dict[str, Any]:
    return {"mlp_hidden_size": list(settings.hidden), "dropout_prob": point.dropout}


def _crossed(settings: BaselinesSettings, point: Hyperparameters) -> dict[str, Any]:
    return {
        **_deep(settings, point), "cross_layer_num": point.num_layers, "structure": "parallel", "reg_weight": 0.0,
    }  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=4, help="points of the grid for each model and seed")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
