"""The manifests of `cluster/kuberay/` as kustomize builds them, and where in them pods and Ray clusters are."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = ROOT / "cluster" / "kuberay" / "overlays"
Manifest = dict[str, Any]


def built(overlay: Path) -> list[Manifest]:
    """What would be applied. Skips the test where there is no kustomize of version 5."""
    done = subprocess.run([*kustomize(), str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader))  # the plain one takes ten times as long


def kustomize() -> list[str]:
    """`kustomize build`, or the one that kubectl has."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        version = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False)
        if "Kustomize Version: v5" in version.stdout:
            return ["kubectl", "kustomize"]
    pytest.skip("manifests are built by kustomize 5, or kubectl 1.27 or newer: neither is there")


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The manifest of this kind and name; the hash behind a ConfigMap's name is left out."""
    [found] = [manifest for manifest in of_kind(manifests, kind) if plain_name(manifest) == name]
    return found


def plain_name(manifest: Manifest) -> str:
    name = manifest["metadata"]["name"]
    return name.rpartition("-")[0] if manifest["kind"] == "ConfigMap" else name


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def title(manifest: Manifest) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def job_spec(manifest: Manifest) -> Manifest | None:
    """Of a RayJob, or of those that a RayCronJob makes."""
    if manifest["kind"] == "RayCronJob":
        return manifest["spec"]["jobTemplate"]
    return manifest["spec"] if manifest["kind"] == "RayJob" else None


def cluster_spec(manifest: Manifest) -> Manifest | None:
    """The Ray cluster in a manifest."""
    if manifest["kind"] == "RayCluster":
        return manifest["spec"]
    if manifest["kind"] == "RayService":
        return manifest["spec"]["rayClusterConfig"]
    job = job_spec(manifest)
    return job.get("rayClusterSpec") if job else None


def groups(cluster: Manifest | None) -> list[tuple[str, Manifest]]:
    """The head and the groups of workers, with their names."""
    if cluster is None:
        return []
    return [("head", cluster["headGroupSpec"]), *((g["groupName"], g) for g in cluster.get("workerGroupSpecs", []))]


def pod_templates(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Every pod template in a manifest, and where it is."""
    job = job_spec(manifest)
    for name, group in groups(cluster_spec(manifest)):
        yield name, group["template"]
    if job and "submitterPodTemplate" in job:
        yield "submitter", job["submitterPodTemplate"]
    if manifest["kind"] == "Deployment":
        yield "pods", manifest["spec"]["template"]
    if manifest["kind"] == "CronJob":
        yield "pods", manifest["spec"]["jobTemplate"]["spec"]["template"]
