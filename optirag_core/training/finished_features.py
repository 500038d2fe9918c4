"""Exit features that are finished, kept in the workspace until all are: a killed job goes on after them.

Each shard is an artifact like the others, there whole or not at all; they go when the recipe's artifact is there.
"""

import logging

import pyarrow as pa
import pyarrow.parquet as pq

from optirag_core.artifacts import Workspace, scratch_folder
from optirag_core.data.dataset import write_table
from optirag_core.errors import ArtifactCorrupt
from optirag_core.manifest import compose_manifest, describe

log = logging.getLogger(__name__)
TABLE_FILE = "features.parquet"


class FinishedFeatures:
    """The finished shards of one recipe, each named by the requests [start, stop) that it answers."""

    def __init__(self, workspace: Workspace, kind: str) -> None:
        """
        Args:
            kind: where they lie (`Recipe.training`).
        """
        self._workspace, self._kind = workspace, kind

    def read(self, start: int, stop: int) -> pa.Table | None:
        """A shard's features; None where they are not finished, or, with a warning, damaged."""
        version = _version(start, stop)
        if not self._workspace.has(self._kind, version):
            return None
        try:
            return pq.read_table(self._workspace.open(self._kind, version).path / TABLE_FILE)
        except ArtifactCorrupt as error:
            log.warning("warning: requests %d to %d are answered again: %s", start, stop, error)
            return None

    def write(self, start: int, stop: int, table: pa.Table) -> None:
        """
        Raises:
            StorageError: the workspace or this machine refuses or is full; the shards before are still there.
        """
        with scratch_folder() as files:
            write_table(table, files / TABLE_FILE)
            version = _version(start, stop)
            manifest = compose_manifest(self._kind, version, describe(files), config={}, parents={}, metrics={})
            self._workspace.publish(self._kind, version, files, manifest)


def _version(start: int, stop: int) -> str:
    return f"requests-{start}-{stop}"
