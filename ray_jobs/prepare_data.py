"""Publisher's raw files -> labelled, leak-free, split tables: the `dataset` artifact.

python -m ray_jobs.prepare_data --config ray_jobs/configs/demo.yaml
python -m ray_jobs.prepare_data --config ray_jobs/configs/bookcrossing-mini.yaml --data DIR
python -m ray_jobs.prepare_data --config FILE --events       with what the endpoint's event log holds by now
"""

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np

from optirag_core.artifacts import Artifact, Workspace, scratch_folder
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.events import LoggedEvents
from optirag_core.data.loading import load_raw
from optirag_core.data.raw_dataset import RawDataset
from optirag_core.data.roles import Roles
from optirag_core.data.splits import history_lengths, split_interactions
from optirag_core.data.synthetic import write_synthetic
from optirag_core.erasure.user import without_erased
from optirag_core.errors import DataError
from optirag_core.manifest import file_sha256
from optirag_core.recipes import dataset_recipe
from optirag_core.storage.base import open_storage
from ray_jobs.command import run_job

log = logging.getLogger(__name__)


def prepare_data(settings: Settings) -> Artifact:
    """Read raw files, split them without leaks, and write the data set artifact."""
    workspace = Workspace(settings.workspace, settings.storage)
    with scratch_folder() as scratch:
        folder = _raw_folder(settings, scratch)
        logged = _logged(settings)
        recipe = dataset_recipe(settings, _fingerprint(folder), logged.recipe if logged.events else None)
        if done := recipe.made(workspace):
            return done
        raw = load_raw(settings.dataset, folder=folder)
    if logged.events:
        raw = logged.added_to(raw)
    raw = without_erased(raw, open_storage(settings.workspace, settings.storage))
    dataset = _split(raw, settings, events_until=logged.until)
    for warning in dataset.info["warnings"]:
        log.warning("warning: %s", warning)
    with scratch_folder() as files:
        dataset.save(files)
        return recipe.save(workspace, files, dict(dataset.info["counts"]))


def _raw_folder(settings: Settings, scratch: Path) -> Path:
    if settings.dataset.source == "synthetic":
        write_synthetic(scratch, settings.dataset.synthetic, seed=settings.seed)
        return scratch
    assert settings.dataset.path is not None, "`DatasetSettings` has refused it"
    folder = Path(settings.dataset.path)
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: --data must name the folder with the publisher's raw files")
    return folder


def _fingerprint(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_sha256(path) for path in files}


def _logged(settings: Settings) -> LoggedEvents:
    if not settings.dataset.events:
        return LoggedEvents()
    return LoggedEvents.read(open_storage(settings.workspace, settings.storage))


def _split(raw: RawDataset, settings: Settings, *, events_until: int) -> Dataset:
    interactions, counts = split_interactions(raw.ratings, settings.dataset, settings.seed)
    labels = interactions["label"].to_numpy()
    timed = interactions["event_time"].null_count == 0
    splits = {name: value for name, value in asdict(counts).items() if name != "method"}
    info = {
        "source": settings.dataset.source,
        "split_method": counts.method,
        "timed": timed,
        "events_until": events_until,  # position of the event log: what lies before it is in here
        "roles": Roles.of(settings.dataset.split, settings.seed).to_info(),
        "warnings": [*raw.warnings, *counts.warnings],
        "counts": {
            **raw.counts,
            "interactions": len(interactions),
            **splits,
            "positive_share": round(float(np.mean(labels)), 4),
        },
        "history_lengths": history_lengths(interactions),
    }
    log.info(
        "%s: %d users, %d items, %d interactions (%s), %.1f %% liked",
        settings.dataset.source, len(raw.users), len(raw.items), len(interactions),
        ", ".join(f"{count} {name}" for name, count in splits.items()), 100 * np.mean(labels),
    )  # fmt: skip
    return Dataset(interactions, raw.users, raw.items, info)


if __name__ == "__main__":
    run_job(prepare_data)
