"""The `baselines` artifacts, one per model and seed: weights, and the scores of the test pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save_file

from optirag_core.baselines.columns import shown_profile
from optirag_core.baselines.samples import Samples
from optirag_core.baselines.training import TrainedBaseline
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset, write_table
from optirag_core.inference.opening import Artifacts
from optirag_core.prompting.template import PromptTemplate
from optirag_core.recipes import Recipe, baselines_recipe

PARENTS = ("dataset", "evidence")
MODEL_FILE, SCORES_FILE = "model.safetensors", "scores.parquet"


class Cell(NamedTuple):
    """One model, trained once."""

    model: str
    seed: int
    recipe: Recipe


def cells(settings: Settings, artifacts: Artifacts, dataset: Dataset) -> Sequence[Cell]:
    """Every model with every seed, seeds outermost: what is there first is one of each."""
    profile = profile_of(settings, dataset)
    seeds = range(settings.seed, settings.seed + settings.baselines.num_seeds)
    parents = {kind: artifacts.digests[kind] for kind in PARENTS}
    return [
        Cell(model, seed, baselines_recipe(settings, parents, model=model, seed=seed, profile=profile))
        for seed in seeds
        for model in settings.baselines.models
    ]


def open_samples(settings: Settings, artifacts: Artifacts, dataset: Dataset) -> Samples:
    """The samples of every cell."""
    attributes = artifacts["evidence"].metrics["attributes"]
    return Samples.of(dataset, settings, attributes=attributes, profile=profile_of(settings, dataset))


def profile_of(settings: Settings, dataset: Dataset) -> list[str]:
    """Columns of users that prompts show."""
    return shown_profile(PromptTemplate(settings.prompt), dataset.users)


def save_baseline(folder: Path, trained: TrainedBaseline, samples: Samples) -> None:
    """Write both files into an existing local folder."""
    save_file(trained.weights, folder / MODEL_FILE)
    scores = samples.test_table.append_column(pa.field("score", pa.float32()), pa.array(trained.scores))
    write_table(scores, folder / SCORES_FILE)


def read_baselines(settings: Settings, artifacts: Artifacts) -> Mapping[str, pa.Table]:
    """The models' scores of the test pairs.

    Args:
        artifacts: `PARENTS` are among them.

    Returns:
        Model -> user_id, item_id, label (int8), score (float32) and seed (int64): `baselines.num_seeds` rows of each
        test pair.

    Raises:
        ArtifactMissing, ArtifactCorrupt: a cell is not there, or damaged: run train_baselines.
    """
    scores: dict[str, list[pa.Table]] = {}
    for cell in cells(settings, artifacts, Dataset.load(artifacts["dataset"].path)):
        made = artifacts.workspace.open(cell.recipe.kind, cell.recipe.version)
        table = pq.read_table(made.path / SCORES_FILE)
        seeds = pa.repeat(pa.scalar(cell.seed, pa.int64()), len(table))
        scores.setdefault(cell.model, []).append(table.append_column("seed", seeds))
    return {model: pa.concat_tables(tables) for model, tables in scores.items()}
