"""The image's recipe: what it copies is there, what it installs is pinned and resolves, nobody in it is root.

No image is built here, and nothing is installed.
"""

import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.cluster.manifests import ROOT

DOCKERFILE = ROOT / "cluster" / "Dockerfile"
IGNORED = ROOT / "cluster" / "Dockerfile.dockerignore"
VARIANTS = {"cpu": ROOT / "constraints.txt", "gpu": ROOT / "cluster" / "constraints-gpu.txt"}
PIN = re.compile(r"([\w.-]+)={2,3}([\w.+-]+)")


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its text, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, text) for name, _, text in (line.partition(" ") for line in joined.splitlines())]


def texts(name: str) -> list[str]:
    return [text for found, text in instructions() if found == name]


def pins(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return {match[1].lower().replace("_", "-"): match[2] for match in map(PIN.fullmatch, lines) if match}


def copied() -> list[str]:
    words = [[word for word in shlex.split(text) if not word.startswith("--")] for text in texts("COPY")]
    return [source for line in words for source in line[:-1]]


def test_everything_that_is_copied_is_in_the_repository_and_sent_along():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    sent = [line[1:] for line in IGNORED.read_text().splitlines() if line.startswith("!")]

    assert sorted(sent) == sorted(set(copied()))
    for source in copied():
        assert any(path == source or path.startswith(f"{source}/") for path in tracked), source


def test_nothing_else_is_sent_to_the_builder():
    rules = [line for line in IGNORED.read_text().splitlines() if line and not line.startswith("#")]

    assert rules[0] == "*"
    assert not any(fnmatch(secret, rule[1:]) for secret in (".env", "runs", "data") for rule in rules[1:])


def test_what_ends_up_in_the_image_is_nobody_with_a_health_check():
    last = max(place for place, (name, _) in enumerate(instructions()) if name == "FROM")
    final = [text for name, text in instructions()[last:] if name == "USER"]

    uid, _, gid = final[-1].partition(":")
    assert int(uid) > 0 and int(gid) > 0  # numbers: Kubernetes' runAsNonRoot reads no names
    assert len(texts("HEALTHCHECK")) == 1
    assert not re.search(r"(TOKEN|PASSWORD|SECRET|ACCESS_KEY)=", " ".join(texts("ENV") + texts("ARG")))


def test_both_variants_are_ray_of_the_pinned_release_and_python():
    bases = dict(text.split("=", 1) for text in texts("ARG") if text.startswith("RAY_"))

    assert bases == {f"RAY_{name.upper()}": f"rayproject/ray:2.60.0-py311-{name}" for name in VARIANTS}
    assert {pins(file)["ray"] for file in VARIANTS.values()} == {"2.60.0"}


def test_every_package_is_installed_under_the_constraints_of_its_variant():
    assert len(installs("gpu")) == 2
    for line in installs("gpu"):
        assert "--constraint constraints.txt" in line
    for file in VARIANTS.values():
        assert f"--chown=1000:100 {file.relative_to(ROOT)} /home/ray/optirag/constraints.txt" in texts("COPY")


def installs(variant: str) -> list[str]:
    """The pip commands of a variant."""
    commands = [part.strip() for text in texts("RUN") for part in text.split("&&")]
    return [c.replace("${VARIANT}", variant) for c in commands if c.startswith("pip install")]


def test_the_gpu_constraints_are_the_others_but_for_what_a_gpu_needs():
    cpu, gpu = pins(VARIANTS["cpu"]), pins(VARIANTS["gpu"])

    assert {name: version for name, version in cpu.items() if gpu.get(name) != version} == {
        "faiss-cpu": cpu["faiss-cpu"]
    }
    added = gpu.keys() - cpu.keys()
    assert "faiss-gpu" in added and gpu["faiss-gpu"] == cpu["faiss-cpu"]
    assert all(name.startswith(("nvidia-", "cuda-", "faiss-gpu", "triton")) for name in added)


@pytest.mark.thorough
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_install_lines_resolve(variant):
    """As in an empty environment; pip installs nothing. Without PyTorch's own index, which the CPU variant adds."""
    for line in installs(variant):
        arguments = shlex.split(line.replace("constraints.txt", str(VARIANTS[variant])))[2:]
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
