"""Two committed runs of scores -> what changed, as a table, JSON and Parquet per user: the `comparisons` artifact.

    python -m ray_jobs.compare --config FILE --run-a 2026-11-21 --run-b 2026-11-22 --compare.max_mean_score_drift 0.02

Exit code 1 where run B is beyond a bound of the section `compare` against run A, 2 where something is wrong. `score`
asks the same before it makes a new run the newest.
"""

import logging
from collections.abc import Callable

import pyarrow as pa

from optirag_core.artifacts import LATEST, Artifact, Workspace, scratch_folder
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import write_table
from optirag_core.errors import RunHeld
from optirag_core.evaluation.comparison import Comparison
from optirag_core.evaluation.comparison_words import beyond, comparison_table
from optirag_core.evaluation.run_comparison import compare_runs
from optirag_core.recipes import Recipe
from ray_jobs.command import run_job

log = logging.getLogger(__name__)
COMPARISON_FILE, USERS_FILE = "comparison.json", "users.parquet"
BEYOND_BOUNDS = 1
"""Exit code."""


def compare(settings: Settings, *, run_a: str, run_b: str) -> Artifact:
    """Print what changed from run A to run B; exit code 1 where it is beyond a bound of `compare`.

    Raises:
        ArtifactMissing, ArtifactCorrupt: a run is not committed, or damaged.
        SystemExit: it is beyond a bound.
    """
    lines, artifact = _compared(settings, run_a, run_b)
    for line in lines:
        log.error("beyond its bound: %s", line)
    if lines:
        raise SystemExit(BEYOND_BOUNDS)
    return artifact


def gate(settings: Settings, run: str) -> Callable[[str], None] | None:
    """What decides whether a run becomes the newest; None without a bound, and for a run that readers do not get.

    Returns:
        A function of the name of the run before, which raises `RunHeld`.
    """
    if not settings.compare.has_bounds or settings.run.pointer != LATEST:
        return None

    def check(before: str) -> None:
        lines, artifact = _compared(settings, before, run)
        if lines:
            more = f", and {len(lines) - 1} more" if lines[1:] else ""
            raise RunHeld(
                f"scores/{run} is committed, but readers go on with {before}: {lines[0]}{more}; see "
                f"comparisons/{artifact.version} of the workspace. To take it nevertheless: `python -m "
                f"ray_jobs.rollback --config FILE --run {run}`, or raise the bound and run the same command again"
            )

    return check


def _compared(settings: Settings, before: str, after: str) -> tuple[list[str], Artifact]:
    found, users, runs = compare_runs(settings, before, after)
    lines = beyond(found, settings.compare)
    recipe = Recipe("comparisons", {"compare": settings.compare.model_dump(mode="json"), "seed": settings.seed}, runs)
    artifact = _saved(settings, recipe, found, users, within_bounds=not lines)
    log.info("\n%s\n", comparison_table(found))
    log.info("comparison   %s/comparisons/%s", settings.workspace, artifact.version)
    return lines, artifact


def _saved(
    settings: Settings, recipe: Recipe, found: Comparison, users: pa.Table, *, within_bounds: bool
) -> Artifact:  # fmt: skip
    with scratch_folder() as files:
        (files / COMPARISON_FILE).write_bytes(found.to_json())
        write_table(users, files / USERS_FILE)
        metrics = {"before": found.before, "after": found.after, "within_bounds": within_bounds}
        return recipe.save(Workspace(settings.workspace, settings.storage), files, metrics)


if __name__ == "__main__":
    run_job(compare, arguments=("run_a", "run_b"))
