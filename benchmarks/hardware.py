"""What a result was measured on."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers


def hardware(device: str) -> dict[str, str | int]:
    """Processor or GPU, threads and library versions."""
    found: dict[str, str | int] = {
        "processor": _processor(),
        "cpus": os.cpu_count() or 0,
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def commit() -> str:
    """The code's revision, marked where files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
    )  # fmt: skip
    return described.stdout.strip() or "unknown"


def portable(arguments: Sequence[str]) -> list[str]:
    """A command's arguments without the places of this machine, which say nothing to others."""
    hidden = {"--data": "DIR", "--workspace": "DIR", "--out": "FILE"}
    previous = ["", *arguments]
    return [hidden.get(before, value) for before, value in zip(previous, arguments, strict=False)]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
