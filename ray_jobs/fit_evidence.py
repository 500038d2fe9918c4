"""Data set -> what its interactions say about pairs, and a regression on it: the `evidence` artifact.

python -m ray_jobs.fit_evidence --config ray_jobs/configs/demo.yaml
"""

import logging
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from optirag_core.artifacts import Artifact, scratch_folder
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import labelled_pairs, requests_for
from optirag_core.evaluation.metrics import binary_metrics
from optirag_core.evidence.attributes import chosen_attributes
from optirag_core.evidence.evidence import Evidence
from optirag_core.evidence.fitting import fit_model
from optirag_core.evidence.model import PairEvidence
from optirag_core.inference.opening import open_artifacts
from optirag_core.recipes import evidence_recipe
from ray_jobs.command import run_job

log = logging.getLogger(__name__)


def fit_evidence(settings: Settings) -> Artifact:
    """Count what is known of users, items and attributes, and regress the labels on it."""
    artifacts = open_artifacts(settings, "dataset")
    recipe = evidence_recipe(settings, artifacts.digests)
    if done := recipe.made(artifacts.workspace):
        return done
    dataset = Dataset.load(artifacts["dataset"].path)
    rows, attributes = dataset.interactions, settings.evidence.attributes
    evidence = Evidence.of(rows, dataset.items, chosen_attributes(dataset.items) if attributes is None else attributes)
    model = fit_model(evidence, _fitted(dataset))
    metrics = {"attributes": list(evidence.attributes), **_validation(PairEvidence(evidence, model), rows)}
    with scratch_folder() as files:
        evidence.save(files)
        model.save(files)
        artifact = recipe.save(artifacts.workspace, files, metrics)
    log.info(
        "evidence of user, item%s: validation AUC %.4f, log loss %.4f (%d pairs)",
        "".join(f", {name}" for name in evidence.attributes), metrics["validation_auc"] or float("nan"),
        metrics["validation_log_loss"] or float("nan"), metrics["validation_pairs"],
    )  # fmt: skip
    return artifact


def _fitted(dataset: Dataset) -> pa.Table:
    """What the regression learns from: as the LLM, nothing that the heads, the policy or validation are made with."""
    train, tune = (
        rows.filter(pc.equal(rows["split"], split))
        for rows, split in ((dataset.interactions, "train"), (dataset.of_role("llm"), "tune"))
    )
    return pa.concat_tables([train, tune])


def _validation(evidence: PairEvidence, interactions: pa.Table) -> dict[str, Any]:
    pairs = labelled_pairs(requests_for(interactions, "validation"))
    if not len(pairs):
        return {"validation_pairs": 0, "validation_auc": None, "validation_log_loss": None}
    measured = binary_metrics(pairs["label"].to_numpy(), evidence.model.score(evidence.standardised(pairs)))
    return {f"validation_{name}": value for name, value in vars(measured).items()}


if __name__ == "__main__":
    run_job(fit_evidence)
