"""`--plan` of every job: what its stages will need, as a table. Nothing is run, and no weights are loaded.

As a command it plans a scoring run of any size: GPUs, hours, cost, what else it needs, and what breaks first.

    python -m ray_jobs.plan --users 100e6 --candidates 50 --gpu a100 --price-per-gpu-hour 4.1
    python -m ray_jobs.plan --config FILE --users 2e6 --candidates 50 --gpu h100 --gpus 16 --index.factory IVF4096,Flat
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optirag_core.config.settings import Settings
from optirag_core.config_file import load_settings
from optirag_core.errors import ConfigError
from optirag_core.planning.accelerators import GIB
from optirag_core.planning.capacity import plan_capacity
from optirag_core.planning.counts import ASSUMED_TOKENS, assumed_counts, count
from optirag_core.planning.plan import Plan, Stage, plan
from optirag_core.planning.study import plan_study
from ray_jobs.capacity import capacity_lines
from ray_jobs.session import one_line_errors

CONFIG = Path(__file__).parent / "configs" / "a100-cluster.yaml"
"""Of the command, where none is given: Vicuna-7B on A100s; its workspace is not looked at."""
HEADINGS = ("", "stage", "workers", "memory of one", "steps", "FLOPs", "hours")


def print_plan(settings: Settings, job: str) -> None:
    """Print the plan of a job's own stages, or of all where it has none that runs the LLM; a study's come on top."""
    planned = plan_study(settings) if job == "reproduce" else plan(settings)
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


def main() -> None:
    """Print the capacity of a run; an `OptiragError` is one line and exit code 2."""
    with one_line_errors():
        settings, looked_at = _parsed(sys.argv[1:])
        counts = count(settings) if looked_at else replace(assumed_counts(settings), sources=(ASSUMED_TOKENS,))
        print("\n".join(capacity_lines(plan_capacity(settings, counts))))


def _parsed(argv: Sequence[str]) -> tuple[Settings, bool]:
    """Settings, and whether their workspace counts."""
    parser = argparse.ArgumentParser(
        description="GPUs, hours and cost of a scoring run, what else it needs, and what breaks first.",
        epilog="Any setting: --section.key value, e.g. --plan.node.gpus 4 --run.pairs_per_shard 20000.",
        allow_abbrev=False,
    )
    parser.add_argument("--users", type=float, required=True, help="e.g. 100e6")
    parser.add_argument("--candidates", type=int, required=True, help="of each user")
    parser.add_argument("--gpu", required=True, help="type, e.g. a100, h100, l4")
    parser.add_argument("--gpus", help="number of them; default: as many as the hours ask for")
    parser.add_argument("--hours", help="of the whole run, 8 where neither hours nor GPUs are given")
    parser.add_argument("--price-per-gpu-hour")
    parser.add_argument("--config", type=Path, help="YAML file of settings, whose workspace is looked at as well")
    given, rest = parser.parse_known_args(argv)
    asked = {
        "pairs": round(given.users * given.candidates), "candidates_per_user": given.candidates,
        "accelerator_type": given.gpu.upper(), "gpus": given.gpus, "hours": given.hours,
        "price_per_gpu_hour": given.price_per_gpu_hour,
    }  # fmt: skip
    overrides = [(f"plan.{name}", str(value)) for name, value in asked.items() if value is not None]
    names, values = rest[::2], rest[1::2]
    if len(names) != len(values) or not all(name.startswith("--") for name in names):
        raise ConfigError(f"expected pairs --section.key value, got {' '.join(rest)}")
    if not given.config:  # no raw files and no artifacts are meant
        overrides += [("data", "none"), ("plan.flops_share", "1.0")]
    overrides += zip((name.removeprefix("--") for name in names), values, strict=True)
    return load_settings(given.config or CONFIG, overrides), given.config is not None


if __name__ == "__main__":
    main()
