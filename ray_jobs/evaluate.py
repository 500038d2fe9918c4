"""Scores and labels -> metrics against floors, as JSON and as one HTML page: the `reports` artifact.

python -m ray_jobs.evaluate --config ray_jobs/configs/demo.yaml
"""

import json
import logging
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.artifacts import Artifact, scratch_folder
from optirag_core.config import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.errors import DataError
from optirag_core.evaluation.report import ReportContext, console_table, write_report
from optirag_core.evaluation.summary import summarize
from optirag_core.inference.opening import TRAINED, Artifacts, open_artifacts
from optirag_core.recipes import Recipe, reports_recipe
from optirag_core.runs.reader import read_artifact
from ray_jobs.command import run_job

log = logging.getLogger(__name__)
SUMMARY_FILE, REPORT_FILE = "summary.json", "report.html"
NAMES = {
    "synthetic": "Generated books",
    "bookcrossing": "BookCrossing",
    "amazon": "Amazon 2018",
    "yelp": "Yelp",
    "tables": "Own data",
}
SPLITS = {
    "leave_last_out": "each user's last interaction is the test, the one before it validation",
    "last_share": "the last interactions of each user are the test, the ones before them validation",
    "time_cut": "one cut by time for all users",
}


def evaluate(settings: Settings) -> Artifact:
    """Compare the scores with the labels and with simple floors."""
    artifacts = open_artifacts(settings, *TRAINED, "scores")
    recipe = reports_recipe(settings, {kind: artifacts.digests[kind] for kind in ("dataset", "scores")})
    artifact = recipe.made(artifacts.workspace) or _report(settings, artifacts, recipe)
    summary = json.loads((artifact.path / SUMMARY_FILE).read_text(encoding="utf-8"))
    log.info("\n%s\n", console_table(summary))
    log.info("scores   %s", f"{artifacts.workspace.uri}/scores/{artifacts['scores'].version}")
    log.info("report   %s", f"{artifacts.workspace.uri}/reports/{artifact.version}/{REPORT_FILE}")
    return artifact


def _report(settings: Settings, artifacts: Artifacts, recipe: Recipe) -> Artifact:
    dataset = Dataset.load(artifacts["dataset"].path)
    scored = _labelled(
        read_artifact(artifacts["scores"]),
        dataset.interactions,
    )
    known = dataset.interactions.filter(pc.not_equal(dataset.interactions["split"], "test"))
    model = json.loads((artifacts["llm"].path / "config.json").read_text(encoding="utf-8"))
    summary = summarize(
        scored, known,
        exit_layers=settings.exit_heads.layers, num_layers=model["num_hidden_layers"],
        seconds=artifacts["scores"].metrics["scorer_seconds"], seed=settings.seed,
    )  # fmt: skip
    with scratch_folder() as files:
        (files / SUMMARY_FILE).write_text(json.dumps(summary, indent=2), encoding="utf-8")
        write_report(files / REPORT_FILE, summary, _context(settings, artifacts, dataset, model))
        metrics = {"auc": summary["model"]["auc"], "log_loss": summary["model"]["log_loss"]}
        return recipe.save(artifacts.workspace, files, metrics)


def _labelled(scores: pa.Table, interactions: pa.Table) -> pa.Table:
    labels = interactions.filter(pc.equal(interactions["split"], "test")).select(["user_id", "item_id", "label"])
    scored = scores.join(labels, keys=["user_id", "item_id"], join_type="inner")
    if not len(scored):
        raise DataError(
            f"none of {len(scores)} scored pairs has a label in the test split: evaluate needs its requests"
        )
    if len(scored) < len(scores):
        log.warning(
            "warning: %d of %d scored pairs have no label and are left out", len(scores) - len(scored), len(scores)
        )
    return scored


def _context(settings: Settings, artifacts: Artifacts, dataset: Dataset, model: dict[str, Any]) -> ReportContext:
    trained = artifacts["llm"].metrics
    scratch = settings.llm.init == "scratch"
    origin = "trained from scratch for this run" if scratch else f"tuned from {settings.llm.pretrained.path}"
    return ReportContext(
        dataset=NAMES[settings.dataset.source] + (f" {settings.dataset.category}" if settings.dataset.category else ""),
        model=f"{model['architectures'][0]} of {trained['num_parameters']:,} parameters and "
        f"{model['num_hidden_layers']} layers, {origin} on {trained['num_answers']:,} answers",
        split=SPLITS[dataset.info["split_method"]],
        shuffled_order=not dataset.info["timed"],
        warnings=dataset.info["warnings"],
        provenance={
            **{f"{kind} ({artifact.version})": artifact.digest for kind, artifact in artifacts.by_kind.items()},
            "seed": settings.seed,
            "code version": artifacts["scores"].manifest["code_version"],
            "scored at": artifacts["scores"].manifest["created_at"],
        },
    )


if __name__ == "__main__":
    run_job(evaluate)
