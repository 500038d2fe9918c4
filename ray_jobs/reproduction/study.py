"""One data set's study: the run whose parts are compared, and variants of it in a workspace of their own.

Variants live in `WORKSPACE/reproduction`, so that nothing that reads the newest artifacts of the workspace, a nightly
run or the endpoint, ever gets one of them.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from optirag_core.artifacts import VARIANTS, Artifact, Workspace, scratch_folder
from optirag_core.config.settings import Settings
from optirag_core.evaluation.reproduction.measurement import Measurement
from optirag_core.evaluation.reproduction.variants import Changes, changed, changes
from optirag_core.inference.opening import TRAINED, Artifacts, open_artifacts
from optirag_core.recipes import Recipe
from ray_jobs.exit_features import exit_features
from ray_jobs.train_retriever import train_retriever
from ray_jobs.tune_llm import tune_llm

log = logging.getLogger(__name__)
MEASURED = ("dataset", "evidence", "retriever", "index", "llm", "exit_features", "exit_heads", "exit_policy")
SECTIONS = ("exit_heads", "exit_policy", "calibration", "evidence", "exit_features")
"""Sections of settings that every cell depends on."""
SHARED = ("dataset", "evidence")
LEARNT = ("dataset", "evidence", "retriever", "index", "llm", "exit_features")
"""What the paper's form of a variant is measured with."""


@dataclass(frozen=True)
class Study:
    """The run, opened."""

    settings: Settings
    artifacts: Artifacts  # MEASURED

    @classmethod
    def of(cls, settings: Settings) -> "Study":
        """Open the newest artifacts; all jobs of `ray_jobs.pipeline.TRAINING` have made them."""
        return cls(settings, open_artifacts(settings, *MEASURED))

    @property
    def digests(self) -> dict[str, str]:
        return {kind: self.artifacts.digests[kind] for kind in TRAINED}

    def variant(self, name: str) -> Settings:
        """Settings of a variant, in the workspace of variants, where data set and evidence are the run's own."""
        encoder = self.settings.reproduce.text_encoder or str(self.artifacts["llm"].path)
        change: Changes = changes(self.settings, text_encoder=encoder)[name]
        settings = changed(self.settings, change, workspace=f"{self.settings.workspace}/{VARIANTS}")
        workspace = Workspace(settings.workspace, settings.storage)
        for kind in SHARED:
            artifact = self.artifacts[kind]
            if not workspace.has(kind, artifact.version):
                workspace.publish(kind, artifact.version, artifact.path, artifact.manifest)
            workspace.select(kind, artifact.version)
        return settings

    def recipe(self, name: str, parents: Mapping[str, str], **how: object) -> Recipe:
        """Of one cell: its name, what it is made from, and the settings that it depends on beside those."""
        settings = self.settings.model_dump(mode="json")
        kept = {section: settings[section] for section in SECTIONS}
        return Recipe("measurements", {"name": name, "seed": self.settings.seed, **kept, **how}, parents)

    def kept(self, recipe: Recipe) -> Measurement | None:
        """A cell that was measured before."""
        workspace = self.artifacts.workspace
        if not workspace.has(recipe.kind, recipe.version):
            return None
        return Measurement.load(workspace.open(recipe.kind, recipe.version).path)

    def keep(self, recipe: Recipe, measurement: Measurement) -> None:
        """Publish a cell."""
        with scratch_folder() as files:
            measurement.save(files)
            metrics = {"pairs": len(measurement.labels), "answers": list(measurement.answers)}
            recipe.save(self.artifacts.workspace, files, metrics)


def retrieved(settings: Settings) -> tuple[Artifact, Artifact]:
    """Another retriever and its index, of a variant's settings."""
    train_retriever(settings)
    artifacts = open_artifacts(settings, "dataset", "retriever", "index")
    return artifacts["retriever"], artifacts["index"]


def tuned(settings: Settings) -> Artifacts:
    """A variant with an LLM of its own, up to its hidden states."""
    for job in (train_retriever, tune_llm, exit_features):
        log.info("variant: %s", job.__name__)
        job(settings)
    return open_artifacts(settings, *LEARNT)
