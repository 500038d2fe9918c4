"""`--plan` of every job: what its stages will need, as a table. Nothing is run, and no weights are loaded."""

from collections.abc import Sequence

from optirag_core.config.settings import Settings
from optirag_core.planning.accelerators import GIB
from optirag_core.planning.plan import Plan, Stage, plan

HEADINGS = ("", "stage", "workers", "memory of one", "steps", "FLOPs", "hours")


def print_plan(settings: Settings, job: str) -> None:
    """Print the plan of a job's own stages, or of all where it has none that runs the LLM."""
    planned = plan(settings)
    own = [stage for stage in planned.stages if stage.job == job]
    print("\n".join(lines(settings, planned, own or planned.stages)))


def lines(settings: Settings, planned: Plan, stages: Sequence[Stage]) -> list[str]:
    """Table, memory by part, what does not fit, and every assumption."""
    table = [HEADINGS, *map(_cells, stages)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = []
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        rows.append("  ".join(cells))
    out = [f"planned, not measured: {planned.num_parameters:,} parameters, {planned.llm}", "", *rows, ""]
    for stage in stages:
        if stage.parts:
            parts = ", ".join(f"{name.replace('_', ' ')} {_gib(size)}" for name, size in stage.parts.items())
            out.append(f"{stage.name}: {parts} GiB")
        out += [f"{stage.name}: {note}" for note in stage.notes]
    return [*out, "", "Assumed:", *(f"- {line}" for line in _assumptions(settings, planned, stages))]


def _cells(stage: Stage) -> tuple[str, ...]:
    room = f" of {_gib(stage.device.room)}" if stage.device.room is not None else ""
    return (
        "*" if stage.chosen else "",
        stage.name,
        f"{stage.workers} x {stage.device.accelerator.name}",
        f"{_gib(stage.memory)}{room} GiB" + ("" if stage.fits else " !"),
        f"{stage.steps:,}" if stage.steps is not None else "",
        f"{stage.flops:.2e}",
        f"{stage.hours:,.2f}" if stage.hours >= 0.01 else "<0.01",
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}" if size >= 0.05 * GIB else f"{size / GIB:.3f}"


def _assumptions(settings: Settings, planned: Plan, stages: Sequence[Stage]) -> list[str]:
    counts, plan_settings = planned.counts, settings.plan
    accelerators = {stage.device.accelerator.name: stage.device.accelerator for stage in stages}
    rates = [
        f"{name}: {each.peak_flops['bfloat16'] / 1e12:,.3g} TFLOP/s in bfloat16, "
        f"{each.peak_flops['float32'] / 1e12:,.3g} in float32, "
        + ("a GEMM measured just now" if name == "cpu" else f"as published, {each.memory_gib} GB")
        + f"; {plan_settings.training_utilization or each.training_utilization:.0%} of it in training, "
        f"{plan_settings.scoring_utilization or each.scoring_utilization:.0%} in scoring"
        for name, each in accelerators.items()
    ]
    return [
        *counts.sources,
        f"{counts.prompts:,} prompts of {counts.row_tokens:,.0f} tokens to tune on, {counts.labelled_prompts:,} to "
        f"compute exit features of; {plan_settings.candidates_per_user} candidates per user to score "
        "(plan.prompts, plan.pairs, plan.candidates_per_user)",
        *rates,
        f"{plan_settings.memory_share:.0%} of a device's memory may be filled (plan.memory_share); a batch is of the "
        f"longest prompts, {settings.prompt.max_tokens:,} tokens; temporaries of kernels are not counted",
        "scoring goes to full depth: exits that are certified do less; times are of the FLOPs alone, without start-up, "
        "loading, prompts, and what workers exchange",
    ]
