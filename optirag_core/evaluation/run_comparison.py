"""Two committed runs of a workspace are opened and compared."""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from optirag_core.artifacts import Workspace
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.ordering import seeded_keys
from optirag_core.data.splits import labelled_pairs, requests_for
from optirag_core.errors import ArtifactMissing, DataError
from optirag_core.evaluation.comparison import Comparison, ScoredPairs, compare_pairs, joined_pairs
from optirag_core.evaluation.per_user import user_metrics
from optirag_core.evaluation.predictors import PAIR_KEY
from optirag_core.evaluation.scored_run import require_test_requests
from optirag_core.runs.reader import read_scores
from optirag_core.runs.run import Run
from optirag_core.storage.base import open_storage

KEYS = 2.0**64


def compare_runs(settings: Settings, before: str, after: str) -> tuple[Comparison, pa.Table, dict[str, str]]:
    """Compare a run with the one before it.

    Labels are those of the test split in the data set of the new run, where that is the newest data set and both runs
    were asked for the test split: other requests may have shown the model what it is tested on.

    Returns:
        The comparison, `per_user.user_metrics`, and the digests of both runs: before, scores.

    Raises:
        ArtifactMissing, ArtifactCorrupt: a run is not committed, or damaged.
    """
    storage = open_storage(settings.workspace, settings.storage)
    manifests = {name: committed(Run(storage, name)) for name in (before, after)}
    old, new = (_scored(settings, name, manifests[name]) for name in (before, after))
    pairs = joined_pairs(old.scores, new.scores)
    labels = _test_labels(Workspace(settings.workspace, settings.storage), manifests, after)
    compared = settings.compare
    found = compare_pairs(old, new, pairs, top_k=compared.top_k, labels=labels, seed=settings.seed)
    users = user_metrics(pairs, None if isinstance(labels, str) else labels, compared.top_k)
    return found, users, {"before": manifests[before]["digest"], "scores": manifests[after]["digest"]}


def committed(run: Run) -> Mapping[str, Any]:
    """A run's manifest.

    Raises:
        ArtifactMissing: there is none.
    """
    if (manifest := run.manifest()) is None:
        raise ArtifactMissing(f"{run.uri} is not committed: name a run that is, or score it first")
    return manifest


def _scored(settings: Settings, name: str, manifest: Mapping[str, Any]) -> ScoredPairs:
    scores = read_scores(
        f"{settings.workspace.rstrip('/')}/scores/{name}", storage=settings.storage,
        kept=_of_users(settings.compare.user_share),
    )  # fmt: skip
    return ScoredPairs(name, scores, manifest["metrics"]["rejects"])


def _of_users(share: float) -> Callable[[pa.Table], pa.Table] | None:
    """The rows of this share of the users, the same ones in every run; None: all."""
    if share == 1.0:
        return None

    def kept(scores: pa.Table) -> pa.Table:
        users = scores["user_id"].combine_chunks().dictionary_encode()
        drawn = seeded_keys(users.dictionary, "compare") / KEYS  # [U] in [0, 1)
        return scores.filter(pa.array((drawn < share)[users.indices.to_numpy()]))

    return kept


def _test_labels(workspace: Workspace, manifests: Mapping[str, Mapping[str, Any]], after: str) -> pa.Table | str:
    """`PAIR_KEY` and label of the test split, or why they say nothing of these runs."""
    for name, manifest in manifests.items():
        try:
            require_test_requests(manifest["config"])
        except DataError:
            return f"run {name} was not asked for the test split"
    try:
        dataset = workspace.open("dataset")
    except ArtifactMissing:
        return "the workspace has no data set"
    if dataset.digest != manifests[after]["parents"].get("dataset"):
        return f"run {after} was scored on another data set than the newest"
    asked = labelled_pairs(requests_for(Dataset.load(dataset.path).interactions, "test"))
    return asked.select([*PAIR_KEY.names, "label"])
