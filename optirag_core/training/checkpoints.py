"""A training's state in the workspace, so that killed workers or a killed driver go on from it.

A checkpoint is an artifact like the others: there whole or not at all, verified when it is read, local or in a bucket.
It is that of one recipe, and goes when the recipe's artifact is there.
"""

import logging
import time

import torch

from optirag_core.artifacts import Artifact, Workspace, scratch_folder
from optirag_core.errors import ArtifactCorrupt, ArtifactMissing
from optirag_core.manifest import compose_manifest, describe
from optirag_core.training.state import Training, load_state, save_state, saved_names
from optirag_core.training.workers import trained_names

log = logging.getLogger(__name__)
STEP = "step-"


class Checkpoints:
    """The newest state of one training."""

    def __init__(self, workspace: Workspace, kind: str, *, every_s: float) -> None:
        """
        Args:
            kind: where they lie (`Recipe.training`).
            every_s: least time between two checkpoints.
        """
        self._workspace, self._kind, self._every_s = workspace, kind, every_s
        self._saved_at = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last one is old enough."""
        return time.monotonic() - self._saved_at >= self._every_s

    def save(self, training: Training, number: int) -> None:
        """Publish the state after `number` steps, then remove the one before; all workers must call.

        Raises:
            StorageError: the workspace or this machine refuses or is full; the one before is still there.
        """
        with scratch_folder() as files:
            save_state(training, files)
            if training.workers.rank == 0:
                before, version = self._workspace.latest(self._kind), f"{STEP}{number}"
                described = describe(files)
                manifest = compose_manifest(self._kind, version, described, config={}, parents={}, metrics={})
                self._workspace.publish(self._kind, version, files, manifest)
                if before not in (None, version):
                    self._workspace.remove(self._kind, before)
        self._saved_at = time.monotonic()

    def restore(self, training: Training) -> int:
        """Take over the newest state, as rank 0 sees it; all workers must call.

        Returns:
            Steps that were taken: 0 where there is none, or one that a worker finds damaged or not to fit, with a
            warning.
        """
        workers = training.workers
        newest = self._newest() if workers.rank == 0 else 0
        number = int(workers.sum(torch.tensor(newest, dtype=torch.float64)))
        if not number:
            return 0
        artifact = self._verified(number, training)
        num_verified = workers.sum(torch.tensor(float(artifact is not None)))
        if artifact is None or num_verified < workers.size:
            return 0
        load_state(training, artifact.path)
        log.info("%s: going on after step %d", training.name, number)
        return number

    def _newest(self) -> int:
        version = self._workspace.latest(self._kind) or ""
        return int(version.removeprefix(STEP)) if self._workspace.has(self._kind) else 0

    def _verified(self, number: int, training: Training) -> Artifact | None:
        try:
            artifact = self._workspace.open(self._kind, f"{STEP}{number}")
            if trained_names(training.module) != saved_names(artifact.path):
                raise ArtifactCorrupt(f"{artifact.path}: it is of a model with other weights")
        except (ArtifactCorrupt, ArtifactMissing) as error:
            log.warning("warning: training starts anew: %s", error)
            return None
        return artifact
