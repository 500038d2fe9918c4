"""All jobs in order on one Ray: raw ratings in, scored pairs and a report out. Finished stages are not repeated.

python -m ray_jobs.pipeline --config ray_jobs/configs/demo.yaml
python -m ray_jobs.pipeline --config ray_jobs/configs/bookcrossing-mini.yaml --data DIR
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from optirag_core.artifacts import Artifact
from optirag_core.config.settings import Settings
from ray_jobs.calibrate_exits import calibrate_exits
from ray_jobs.command import run_job
from ray_jobs.evaluate import evaluate
from ray_jobs.exit_features import exit_features
from ray_jobs.fit_evidence import fit_evidence
from ray_jobs.prepare_data import prepare_data
from ray_jobs.score import score
from ray_jobs.session import ray_session
from ray_jobs.train_exit_heads import train_exit_heads
from ray_jobs.train_retriever import train_retriever
from ray_jobs.tune_llm import tune_llm

log = logging.getLogger(__name__)
TRAINING: tuple[Callable[[Settings], Any], ...] = (
    prepare_data, fit_evidence, train_retriever, tune_llm, exit_features, train_exit_heads, calibrate_exits,
)  # fmt: skip
STAGES: tuple[Callable[[Settings], Any], ...] = (*TRAINING, score, evaluate)


def pipeline(settings: Settings) -> Artifact:
    """Run every job, from raw ratings to the report."""
    with ray_session(settings.ray):
        for number, stage in enumerate(STAGES, start=1):
            log.info("[%d/%d] %s", number, len(STAGES), stage.__name__)
            started = time.monotonic()
            artifact: Artifact = stage(settings)
            log.info("[%d/%d] %s: %.1f s", number, len(STAGES), stage.__name__, time.monotonic() - started)
    return artifact


if __name__ == "__main__":
    run_job(pipeline)
