"""The paper's experimental section on this data set: one report with every table and figure, as HTML and Markdown.

    python -m ray_jobs.reproduce --config ray_jobs/configs/demo.yaml
    python -m ray_jobs.reproduce --config FILE --only table2,table4

Trains what the run of `ray_jobs.pipeline` lacks, then the CTR models, then measures cell by cell; what is finished is
kept, so that a killed study goes on, and another part costs only what it needs itself. Systems that the run is compared
with are trained in `WORKSPACE/reproduction`: nothing that reads the workspace's newest artifacts ever gets one.
"""

import logging
import time

from optirag_core.artifacts import Artifact, scratch_folder
from optirag_core.config.settings import Settings
from optirag_core.evaluation.reproduction.html import write_html
from optirag_core.evaluation.reproduction.markdown import write_markdown
from optirag_core.evaluation.reproduction.numbers import write_numbers
from optirag_core.recipes import Recipe
from ray_jobs.command import run_job
from ray_jobs.pipeline import TRAINING
from ray_jobs.reproduction.cells import measure
from ray_jobs.reproduction.report import document_of
from ray_jobs.reproduction.study import Study
from ray_jobs.session import ray_session
from ray_jobs.train_baselines import train_baselines

log = logging.getLogger(__name__)
REPORT = "report"


def reproduce(settings: Settings) -> Artifact:
    """Measure every part of the paper's experiments that `reproduce.parts` names, and write the report."""
    started = time.monotonic()
    with ray_session(settings.ray):
        for job in TRAINING:
            job(settings)
        if "table2" in settings.reproduce.parts:
            train_baselines(settings)
        study = Study.of(settings)
        cells = measure(study)
        document = document_of(study, cells)
    parents = {**study.digests, "exit_features": study.artifacts.digests["exit_features"]}
    made_by = {name: getattr(settings, name).model_dump(mode="json") for name in ("reproduce", "baselines")}
    recipe = Recipe("reproductions", {**made_by, "seed": settings.seed}, parents)
    with scratch_folder() as files:
        write_html(files / f"{REPORT}.html", document)
        write_markdown(files / f"{REPORT}.md", document)
        write_numbers(files / "numbers.parquet", document)
        artifact = recipe.save(study.artifacts.workspace, files, {"seconds": time.monotonic() - started})
    log.info("report   %s/reproductions/%s/%s.html", settings.workspace, artifact.version, REPORT)
    return artifact


if __name__ == "__main__":
    run_job(reproduce)
