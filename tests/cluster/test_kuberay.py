"""Manifests against schemas and rules, and each rule against one that breaks it. Nothing here needs a cluster."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.cluster.manifests import Manifest, of_kind, one, pod_templates
from tests.cluster.rules import complaints

KUBERNETES = "1.31"
"""The oldest one: podFailurePolicy is stable from here on."""
SCHEMA = yaml.safe_load((Path(__file__).parent / "kuberay.schema.yaml").read_text())
CRDS = os.environ.get("OPTIRAG_KUBERAY_CRDS")


def test_ray_objects_have_the_fields_of_kuberay(manifests):
    ours = [manifest for manifest in manifests if manifest["apiVersion"] == "ray.io/v1"]

    assert len(ours) >= 12
    for manifest in ours:
        jsonschema.validate(manifest, SCHEMA)


@pytest.mark.skipif(not CRDS, reason="OPTIRAG_KUBERAY_CRDS names no folder with KubeRay's CRDs (ray.io_*.yaml)")
def test_ray_objects_agree_with_the_crds_themselves(manifests):
    schemas = {}
    for file in Path(CRDS or "").glob("ray.io_*.yaml"):
        definition = yaml.safe_load(file.read_text())["spec"]
        [version] = [each for each in definition["versions"] if each["name"] == "v1"]
        schemas[definition["names"]["kind"]] = closed(version["schema"]["openAPIV3Schema"])
    assert schemas.keys() >= {"RayCluster", "RayCronJob", "RayJob", "RayService"}
    for manifest in of_kind(manifests, *schemas):
        jsonschema.validate(manifest["spec"], schemas[manifest["kind"]]["properties"]["spec"])


def closed(schema: Any) -> Any:
    """The same with `additionalProperties: false` wherever properties are listed: a typo is an error."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(value) for name, value in schema.items()}
    listed = isinstance(inner.get("properties"), dict) and inner.get("type") == "object"
    return inner | ({"additionalProperties": False} if listed and "additionalProperties" not in inner else {})


def test_a_closed_schema_refuses_what_it_does_not_list():
    text = {"type": "string"}
    labels = {"type": "object", "additionalProperties": text}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": text, "labels": labels}}}}

    jsonschema.validate({"spec": {"a": "x", "labels": {"any": "y"}}}, closed(schema))
    jsonschema.validate({"spec": {"b": "x"}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"spec": {"b": "x"}}, closed(schema))


def test_everything_else_has_the_fields_of_kubernetes(manifests):
    for manifest in manifests:
        if manifest["apiVersion"] != "ray.io/v1":
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        for place, template in pod_templates(manifest):
            pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": place}, "template": template}
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_rules(manifests):
    assert complaints(manifests) == []


def changed(*path: str | int, to: object) -> Callable[[Manifest], None]:
    """Sets one place of a manifest; None removes it."""

    def change(manifest: Manifest) -> None:
        *way, last = path
        place: Any = manifest
        for key in way:
            place = place[key]
        if to is None:
            del place[last]
        else:
            place[last] = to

    return change


HEAD = ("spec", "headGroupSpec")
GPUS = ("spec", "workerGroupSpecs", 1)
CONTAINER = (*HEAD, "template", "spec", "containers", 0)
BROKEN = [
    ("RayJob", changed("metadata", "name", to="optirag-" + 40 * "a"), "at most 47"),
    ("RayCronJob", changed("metadata", "name", to="optirag-" + 29 * "a"), "at most 36"),
    ("RayService", changed("metadata", "name", to="optirag-" + 40 * "a"), "at most 47"),
    ("RayCluster", changed("metadata", "name", to="optirag-" + 46 * "a"), "at most 53"),
    ("RayCluster", changed("metadata", "name", to="1.optirag"), "no DNS label"),
    ("RayJob", changed("spec", "shutdownAfterJobFinishes", to=False), "ttlSecondsAfterFinished needs"),
    ("RayJob", changed("spec", "shutdownAfterJobFinishes", to=None), "suspend needs"),
    ("RayJob", changed("spec", "rayClusterSpec", to=None), "rayClusterSpec and clusterSelector"),
    ("RayJob", changed("spec", "entrypoint", to="python -m ray_jobs.score"), "no command of the README"),
    ("RayJob", changed("spec", "runtimeEnvYAML", to="env_vars: {}"), "runtime_env"),
    ("RayCronJob", changed("spec", "schedule", to="TZ=Asia/Tokyo 0 1 * * *"), "TZ in the schedule"),
    ("RayCronJob", changed("spec", "schedule", to="0 1 * *"), "five fields"),
    ("CronJob", changed("spec", "timeZone", to="Mars/Olympus"), "timeZone"),
    ("CronJob", changed("spec", "concurrencyPolicy", to="Allow"), "not Forbid"),
    ("RayCluster", changed("spec", "authOptions", to=None), "mode is not token"),
    ("RayCluster", changed("spec", "enableInTreeAutoscaling", to=False), "enableInTreeAutoscaling"),
    ("RayCluster", changed(*HEAD, "rayStartParams", "num-cpus", to="4"), "num-cpus is not 0"),
    ("RayCluster", changed(*CONTAINER, "resources", "limits", "nvidia.com/gpu", to="1"), "head: has a GPU"),
    ("RayCluster", changed(*GPUS, "resources", to=None), "no accelerator_type"),
    ("RayCluster", changed(*GPUS, "minReplicas", to=1), "minReplicas is not 0"),
    ("RayCluster", changed(*GPUS, "minReplicas", to=99), "above maxReplicas"),
    ("RayCluster", changed(*GPUS, "rayStartParams", to={"num-gpus": "1"}), "in rayStartParams as well"),
    ("RayCluster", changed(*GPUS, "template", "spec", "tolerations", to=None), "tolerations"),
    ("RayCluster", changed(*GPUS, "template", "spec", "restartPolicy", to="Always"), "restartPolicy Never"),
    (
        "RayCluster",
        changed(*GPUS, "template", "spec", "containers", 0, "resources", "limits", "nvidia.com/gpu", to="2"),
        "of nvidia.com/gpu differ",
    ),
    ("RayCluster", changed(*CONTAINER, "resources", "limits", "memory", to=None), "of memory differ"),
    ("RayCluster", changed(*CONTAINER, "image", to="optirag:latest"), "not pinned"),
    ("RayCluster", changed(*CONTAINER, "image", to="optirag"), "not pinned"),
    ("RayCluster", changed(*CONTAINER, "ports", 0, "name", to=None), "without a name"),
    ("RayCluster", changed(*CONTAINER, "securityContext", to=None), "allowPrivilegeEscalation"),
    ("RayCluster", changed(*CONTAINER, "env", 0, to={"name": "REDIS_PASSWORD", "value": "x"}), "in clear"),
    ("RayCluster", changed(*HEAD, "template", "spec", "securityContext", "runAsNonRoot", to=None), "runAsNonRoot"),
    ("RayCluster", changed(*HEAD, "template", "spec", "serviceAccountName", to="mine"), "no ServiceAccount mine"),
    ("ConfigMap", changed("metadata", "name", to="mine-1"), "there is no ConfigMap"),
    ("PodDisruptionBudget", changed("spec", "minAvailable", to="50%"), "whole number"),
    ("ConfigMap", changed("kind", to="Secret"), "a secret in the repository"),
    ("NetworkPolicy", changed("spec", "ingress", 2, "ports", 0, "port", to=6379), "6379 (GCS) is open"),
    ("NetworkPolicy", changed("spec", "ingress", 4, "ports", 0, "port", to=8265), "8265 (dashboard and jobs) is open"),
    ("NetworkPolicy", changed("spec", "ingress", 1, "from", to=None), "8265 (dashboard and jobs) is open"),
]
NAMED = {"CronJob": "optirag-nightly", "RayJob": "optirag-score", "RayCronJob": "optirag-nightly"}
NAMED |= {"PodDisruptionBudget": "optirag-job-head", "NetworkPolicy": "optirag-ray", "ConfigMap": "optirag-settings"}


@pytest.mark.parametrize(("kind", "change", "message"), BROKEN, ids=[message for _, _, message in BROKEN])
def test_a_rule_refuses_what_breaks_it(prod, kind, change, message):
    broken = copy.deepcopy(prod)
    change(one(broken, kind, NAMED.get(kind, "optirag")))

    assert any(message in complaint for complaint in complaints(broken))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("RayCluster", changed("spec", "headGroupSpecs", to={})),
        ("RayCluster", changed("spec", "autoscalerOptions", "idleTimeout", to=5)),
        ("RayJob", changed("spec", "ttlSecondsAfterFinish", to=5)),
        ("RayJob", changed("spec", "rayClusterSpec", "workerGroupSpecs", 0, "groupName", to=None)),
        ("RayService", changed("spec", "serveConfig", to="")),
        ("RayCronJob", changed("spec", "concurrencyPolicy", to="Forbid")),
    ],
)
def test_the_schema_refuses_a_field_that_is_none(prod, kind, change):
    broken = copy.deepcopy(one(prod, kind, NAMED.get(kind, "optirag")))
    change(broken)

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)
