"""What `ray_jobs.reproduce` needs beside the run: other LLMs, and passes of the run's own over other prompts."""

from collections.abc import Iterator
from dataclasses import replace

from optirag_core.config.settings import Settings
from optirag_core.engine.cost import ModelShape
from optirag_core.evaluation.reproduction.cells import llm_work
from optirag_core.evaluation.reproduction.variants import SMALLER, changed, changes
from optirag_core.planning.counts import Counts
from optirag_core.planning.llm import planned_config
from optirag_core.planning.plan import Plan, Stage, plan
from optirag_core.planning.work import scoring_flops

TUNED = ("tune_llm", "exit_features")
"""What an LLM of its own costs a row of a table."""
LEFT_OUT = "of a study nothing is there yet; its retrievers, its CTR models and what it times are not counted"


def plan_study(settings: Settings) -> Plan:
    """Plan the run's stages but its scores, and those of its study.

    Raises:
        ConfigError: as `plan`.
        ModelError: as `plan`.
    """
    planned = plan(settings)
    counts = replace(planned.counts, sources=(*planned.counts.sources, LEFT_OUT))
    stages = [stage for stage in planned.stages if stage.job != "score"]
    return replace(planned, counts=counts, stages=[*stages, *_added(settings, planned)])


def _added(settings: Settings, planned: Plan) -> Iterator[Stage]:
    work = llm_work(settings)
    own = {stage.job: stage for stage in planned.stages if stage.chosen}
    if work.num_tuned:
        for job in TUNED:
            yield _again(own[job], f"{own[job].name}, {work.num_tuned} times more", work.num_tuned)
    if work.smaller:
        smaller = changed(settings, changes(settings, text_encoder="")[SMALLER])
        for stage in plan(smaller).stages:
            if stage.chosen and stage.job in TUNED:
                yield _again(stage, f"{stage.name}, a smaller LLM", 1)
    if work.passes:
        prompts = planned.counts.test_prompts
        shape = ModelShape.of(planned_config(settings)[0])
        flops = sum(_pass_flops(shape, planned.counts, settings.prompt.num_similar_users, k) for k in work.passes)
        name = f"exit_features, {len(work.passes)} times more for {prompts:,} test prompts"
        yield _again(own["exit_features"], name, flops / own["exit_features"].flops)


def _again(stage: Stage, name: str, times: float) -> Stage:
    """Its kind of work that many times."""
    steps = None if stage.steps is None else round(stage.steps * times)
    return replace(
        stage, name=name, flops=stage.flops * times, hours=stage.hours * times, steps=steps, parts={}, notes=()
    )  # fmt: skip


def _pass_flops(shape: ModelShape, counts: Counts, usual: int, similar: int) -> float:
    """Of the test prompts with `similar` users in each, where there are `usual` ones in the run's."""
    share = similar / usual if usual else 0.0
    prefix = counts.cold_prefix_tokens + share * (counts.prefix_tokens - counts.cold_prefix_tokens)
    candidates = counts.labelled_pairs / max(1, counts.labelled_prompts)
    return scoring_flops(shape, counts.test_prompts, candidates, prefix, counts.suffix_tokens)
