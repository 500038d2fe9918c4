"""Scores and labels -> metrics against floors, as JSON and as one HTML page: the `reports` artifact.

python -m ray_jobs.evaluate --config ray_jobs/configs/demo.yaml
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from optirag_core.artifacts import Artifact, scratch_folder
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.engine.certificate import Calibration
from optirag_core.engine.policy import ExitPolicy
from optirag_core.evaluation.known import Known
from optirag_core.evaluation.labels import LabelledScores
from optirag_core.evaluation.predictors import PREDICTORS, predictions
from optirag_core.evaluation.report import ReportContext, console_table, write_report
from optirag_core.evaluation.scored_run import ScoredRun, require_test_requests
from optirag_core.evaluation.summary import Summary, summarize
from optirag_core.evaluation.worth import Worth, worth_of
from optirag_core.inference.opening import TRAINED, Artifacts, open_artifacts
from optirag_core.inference.parts import open_heads
from optirag_core.inference.policy import run_policy
from optirag_core.recipes import Recipe, reports_recipe
from optirag_core.runs.reader import read_artifact
from optirag_core.training.exit_features import read_features
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
    """Compare the scores with the labels and with the floors.

    Raises:
        DataError: the run's requests are not the test split's own.
    """
    artifacts = open_artifacts(settings, *TRAINED, "scores", run=settings.run.name or settings.run.pointer)
    require_test_requests(artifacts["scores"].manifest["config"])
    parents = {kind: artifacts.digests[kind] for kind in ("dataset", "evidence", "scores")}
    recipe = reports_recipe(settings, parents, PREDICTORS)
    artifact = recipe.made(artifacts.workspace) or _report(settings, artifacts, recipe)
    summary = Summary.from_json((artifact.path / SUMMARY_FILE).read_bytes())
    log.info("\n%s\n", console_table(summary))
    log.info("scores   %s", f"{artifacts.workspace.uri}/scores/{artifacts['scores'].version}")
    log.info("report   %s", f"{artifacts.workspace.uri}/reports/{artifact.version}/{REPORT_FILE}")
    return artifact


def _report(settings: Settings, artifacts: Artifacts, recipe: Recipe) -> Artifact:
    dataset = Dataset.load(artifacts["dataset"].path)
    labelled = LabelledScores.of(read_artifact(artifacts["scores"]), dataset.interactions)
    known = Known.of(dataset, artifacts["evidence"].metrics["attributes"])
    model = json.loads((artifacts["llm"].path / "config.json").read_text(encoding="utf-8"))
    heads = artifacts["exit_heads"].manifest["config"]["exit_heads"]
    policy, calibration = run_policy(artifacts["scores"].manifest["config"], artifacts.by_kind)
    floors = predictions(known, labelled.pairs)
    summary = summarize(
        labelled, floors, ScoredRun.of(artifacts["scores"].metrics),
        exit_layers=[*([] if policy.evidence_confidence is None else [0]), *heads["layers"]],
        num_layers=model["num_hidden_layers"], seed=settings.seed,
        worth=_worth(settings, artifacts, labelled, floors),
    )  # fmt: skip
    context = _context(settings, artifacts, dataset, model, policy, calibration)
    with scratch_folder() as files:
        (files / SUMMARY_FILE).write_bytes(summary.to_json())
        write_report(files / REPORT_FILE, summary, context)
        return recipe.save(artifacts.workspace, files, {"auc": summary.model.auc, "log_loss": summary.model.log_loss})


def _worth(
    settings: Settings, artifacts: Artifacts, labelled: LabelledScores, floors: Mapping[str, np.ndarray]
) -> Worth:
    features = artifacts.workspace.open("exit_features")
    artifacts["exit_heads"].require_parent(features)
    heads, lm_head = open_heads(settings, artifacts)
    test = read_features(features.path, "test")
    return worth_of(test, heads, lm_head, labelled, floors=floors, seed=settings.seed)


def _context(
    settings: Settings, artifacts: Artifacts, dataset: Dataset, model: dict[str, Any],
    policy: ExitPolicy, calibration: Calibration | None,
) -> ReportContext:  # fmt: skip
    trained, made = artifacts["llm"].metrics, artifacts["dataset"].manifest["config"]["dataset"]
    scratch = artifacts["llm"].manifest["config"]["llm"]["init"] == "scratch"
    origin = "trained from scratch for this run" if scratch else f"tuned from {trained['pretrained']}"
    return ReportContext(
        dataset=NAMES[made["source"]] + (f" {made['category']}" if made["category"] else ""),
        model=f"{model['architectures'][0]} of {trained['num_parameters']:,} parameters and "
        f"{model['num_hidden_layers']} layers, {origin} on {trained['num_answers']:,} answers",
        split=SPLITS[dataset.info["split_method"]],
        shuffled_order=not dataset.info["timed"],
        warnings=dataset.info["warnings"],
        history_lengths=dataset.info.get("history_lengths", {}),
        curves={kind: artifacts[kind].metrics.get("curve", {}) for kind in ("retriever", "llm", "exit_heads")},
        provenance={
            **{f"{kind} ({artifact.version})": artifact.digest for kind, artifact in artifacts.by_kind.items()},
            "seed": settings.seed,
            "code version": artifacts["scores"].manifest["code_version"],
            "scored at": artifacts["scores"].manifest["created_at"],
        },
        exit_policy=policy,
        calibration=calibration,
    )


if __name__ == "__main__":
    run_job(evaluate)
