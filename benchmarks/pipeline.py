"""Wall time and memory of a whole pipeline run, with the figures of its report.

    python -m benchmarks.pipeline --out benchmarks/results/FILE.json -- --config FILE [--data DIR] --workspace NEW_DIR

`--keep_finished` goes on in a workspace with artifacts: wall time and memory are then those of the stages that ran.
Memory is the largest sum over the run's processes of what each holds for itself (USS) plus shared memory counted once.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.hardware import commit, hardware, portable
from optirag_core.artifacts import Workspace
from optirag_core.inference.opening import TRAINED
from ray_jobs.command import parse

INTERVAL_S = 1.0
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep_finished", action="store_true", help="stages that are finished are not measured again")
    parser.add_argument("pipeline", nargs=argparse.REMAINDER, help="-- and the pipeline's own arguments")
    given = parser.parse_args()
    arguments = given.pipeline[1:] if given.pipeline[:1] == ["--"] else given.pipeline
    settings, _ = parse(arguments)
    if not given.keep_finished and Workspace(settings.workspace, settings.storage).has("dataset"):
        sys.exit(f"{settings.workspace} holds artifacts: name a new folder, or --keep_finished to measure the rest")
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.pipeline", *arguments], stdout=subprocess.PIPE, text=True
    )
    peak = _peak_memory(process)
    output = process.stdout.read()
    if process.wait():
        sys.exit(f"the pipeline ended with exit code {process.returncode}")
    result = {
        "command": " ".join(["python -m ray_jobs.pipeline", *portable(arguments)]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "hardware": hardware("cpu"),
        "wall_seconds": round(time.monotonic() - started, 1),
        "peak_memory_gib": round(peak / GIB, 2),
        "stage_seconds": {name: float(s) for name, s in re.findall(r"^\[\d/\d\] (\w+): ([\d.]+) s$", output, re.M)},
        **_figures(Workspace(settings.workspace, settings.storage)),
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(output)
    print(json.dumps({key: result[key] for key in ("wall_seconds", "peak_memory_gib", "stage_seconds")}, indent=2))


def _peak_memory(process: subprocess.Popen) -> int:
    peak, shared_before = 0, psutil.virtual_memory().shared
    while process.poll() is None:
        time.sleep(INTERVAL_S)
        total = 0
        for child in _family(process.pid):
            try:
                total += child.memory_full_info().uss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        peak = max(peak, total + max(0, psutil.virtual_memory().shared - shared_before))
    return peak


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _figures(workspace: Workspace) -> dict[str, object]:
    summary = json.loads((workspace.open("reports").path / "summary.json").read_text(encoding="utf-8"))
    figures = {name: summary[name] for name in ("exits", "cold_start", "run", "over_floors")}
    figures["model"] = _without_curves(summary["model"])
    figures["floors"] = {name: _without_curves(floor) for name, floor in summary["floors"].items()}
    figures["worth"] = summary["worth"] and {
        name: _without_curves(value) if isinstance(value, dict) else value for name, value in summary["worth"].items()
    }
    for kind in (*TRAINED, "scores"):
        figures[kind] = {name: value for name, value in workspace.open(kind).metrics.items() if name != "curve"}
    return figures


def _without_curves(quality: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in quality.items() if name not in ("calibration", "histogram", "roc")}


if __name__ == "__main__":
    main()
