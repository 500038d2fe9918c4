"""What manifests must keep to beyond their schemas: KubeRay's own checks, which no CRD has, and the project's rules.

Each rule yields what is wrong, in words.
"""

import re
import zoneinfo
from collections.abc import Iterator

from tests.cluster.manifests import Manifest, cluster_spec, groups, job_spec, of_kind, pod_templates, title

NAME_LENGTHS = {"RayCluster": 53, "RayJob": 47, "RayService": 47, "RayCronJob": 36}
"""KubeRay's: the names of what it makes are longer by a suffix, and of 63 characters at most."""
RAY_PORTS = {6379: "GCS", 8265: "dashboard and jobs", 10001: "client"}
OPERATOR = "kuberay-system"
LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
PINNED = re.compile(r"[a-z0-9./:-]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})")
SECRET_NAME = re.compile(r"(TOKEN|PASSWORD|SECRET|ACCESS_KEY)$", re.IGNORECASE)
CRON_FIELD = re.compile(r"(\*|\d+(-\d+)?)(/\d+)?(,\d+(-\d+)?(/\d+)?)*")
COMMAND = re.compile(r"python -m ray_jobs\.\w+ --config \S+( --[\w.]+ (\$\(date -u \+%F\)|\S)+)*")


def complaints(manifests: list[Manifest]) -> list[str]:
    """Everything that is wrong with what one overlay builds."""
    rules = (names, jobs, schedules, clusters, node_groups, pods, images, secrets, references, budgets, network)
    return [complaint for rule in rules for complaint in rule(manifests)]


def names(manifests: list[Manifest]) -> Iterator[str]:
    for manifest in of_kind(manifests, *NAME_LENGTHS):
        name, most = manifest["metadata"]["name"], NAME_LENGTHS[manifest["kind"]]
        if len(name) > most:
            yield f"{title(manifest)}: the name has {len(name)} characters, at most {most} are allowed"
        if not LABEL.fullmatch(name):
            yield f"{title(manifest)}: the name is no DNS label"


def jobs(manifests: list[Manifest]) -> Iterator[str]:
    for manifest in of_kind(manifests, "RayJob", "RayCronJob"):
        job = job_spec(manifest) or {}
        ends = job.get("shutdownAfterJobFinishes", False)
        if job.get("ttlSecondsAfterFinished", 0) > 0 and not ends:
            yield f"{title(manifest)}: ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
        if job.get("suspend") and not ends:
            yield f"{title(manifest)}: suspend needs shutdownAfterJobFinishes"
        if ("rayClusterSpec" in job) == ("clusterSelector" in job):
            yield f"{title(manifest)}: one of rayClusterSpec and clusterSelector is needed"
        if not COMMAND.fullmatch(job.get("entrypoint", "")):
            yield f"{title(manifest)}: the entrypoint is no command of the README: {job.get('entrypoint')}"


def schedules(manifests: list[Manifest]) -> Iterator[str]:
    for manifest in of_kind(manifests, "CronJob", "RayCronJob"):
        schedule, zone = manifest["spec"]["schedule"], manifest["spec"].get("timeZone")
        fields = schedule.split()
        if "TZ" in schedule:
            yield f"{title(manifest)}: TZ in the schedule, which belongs into timeZone"
        elif len(fields) != 5 or not all(map(CRON_FIELD.fullmatch, fields)):
            yield f"{title(manifest)}: no schedule of five fields: {schedule}"
        if zone not in zoneinfo.available_timezones():
            yield f"{title(manifest)}: timeZone {zone} is none"
        if manifest["kind"] == "CronJob" and manifest["spec"].get("concurrencyPolicy") != "Forbid":
            yield f"{title(manifest)}: concurrencyPolicy is not Forbid"


def clusters(manifests: list[Manifest]) -> Iterator[str]:
    for manifest in manifests:
        cluster = cluster_spec(manifest)
        if cluster is None:
            continue
        if cluster.get("authOptions", {}).get("mode") != "token" or not cluster.get("rayVersion"):
            yield f"{title(manifest)}: authOptions.mode is not token, or rayVersion is missing"
        if not cluster.get("enableInTreeAutoscaling"):
            yield f"{title(manifest)}: enableInTreeAutoscaling is off"
        head = cluster["headGroupSpec"]
        if head.get("rayStartParams", {}).get("num-cpus") != "0":
            yield f"{title(manifest)}, head: num-cpus is not 0, so that actors may run there"
        if _has_gpu(head):
            yield f"{title(manifest)}, head: has a GPU"


def node_groups(manifests: list[Manifest]) -> Iterator[str]:
    for manifest in manifests:
        for name, group in groups(cluster_spec(manifest)):
            where, params = f"{title(manifest)}, {name}", group.get("rayStartParams", {})
            if group.get("resources") and {"num-cpus", "num-gpus", "resources"} & params.keys():
                yield f"{where}: resources are in rayStartParams as well"
            if group.get("minReplicas", 0) > group.get("maxReplicas", 0):
                yield f"{where}: minReplicas is above maxReplicas"
            spec = group["template"]["spec"]
            if spec.get("restartPolicy", "Never") != "Never":
                yield f"{where}: autoscaler v2 needs restartPolicy Never"
            if not _has_gpu(group):
                continue
            if not any(key.startswith("accelerator_type:") for key in group.get("resources", {})):
                yield f"{where}: no accelerator_type among resources: at 0 nodes nothing would start"
            if group.get("minReplicas") != 0:
                yield f"{where}: minReplicas is not 0: GPUs are paid for while nothing runs"
            if not spec.get("nodeSelector") or not spec.get("tolerations"):
                yield f"{where}: no nodeSelector or tolerations for GPU nodes"


def _has_gpu(group: Manifest) -> bool:
    kinds = [kind for c in group["template"]["spec"]["containers"] for kind in c.get("resources", {}).values()]
    return any(key.endswith("/gpu") for kind in kinds for key in kind)


def pods(manifests: list[Manifest]) -> Iterator[str]:
    """Pod Security Standard `restricted`, memory that is there, and ports that policies can name."""
    for manifest in manifests:
        for place, template in pod_templates(manifest):
            where, spec = f"{title(manifest)}, {place}", template["spec"]
            context = spec.get("securityContext", {})
            if context.get("runAsNonRoot") is not True or context.get("runAsUser", 0) == 0:
                yield f"{where}: runAsNonRoot and a runAsUser are missing"
            if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
                yield f"{where}: seccompProfile is not RuntimeDefault"
            for container in spec["containers"]:
                own = container.get("securityContext", {})
                if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities") != {"drop": ["ALL"]}:
                    yield f"{where}, {container['name']}: allowPrivilegeEscalation, or capabilities not dropped"
                requests, limits = (container.get("resources", {}).get(kind, {}) for kind in ("requests", "limits"))
                for resource in {"memory", *(key for key in {*requests, *limits} if key.endswith("/gpu"))}:
                    if requests.get(resource) is None or requests[resource] != limits.get(resource):
                        yield f"{where}, {container['name']}: requests and limits of {resource} differ"
                if not all(port.get("name") for port in container.get("ports", [])):
                    yield f"{where}, {container['name']}: a port without a name"


def images(manifests: list[Manifest]) -> Iterator[str]:
    for manifest in manifests:
        for place, template in pod_templates(manifest):
            for container in template["spec"]["containers"]:
                if not PINNED.fullmatch(container["image"]):
                    yield f"{title(manifest)}, {place}: image {container['image']} is not pinned"


def secrets(manifests: list[Manifest]) -> Iterator[str]:
    """Secrets are mounted: `runtime_env` is in clear in a log file, and so is an environment in many a page."""
    for manifest in manifests:
        if manifest["kind"] == "Secret":
            yield f"{title(manifest)}: a secret in the repository"
        if "runtimeEnvYAML" in (job_spec(manifest) or {}):
            yield f"{title(manifest)}: has a runtime_env; the image has the code, and secrets are mounted"
        for place, template in pod_templates(manifest):
            for container in template["spec"]["containers"]:
                for variable in container.get("env", []):
                    if "value" in variable and SECRET_NAME.search(variable["name"]):
                        yield f"{title(manifest)}, {place}: {variable['name']} is in clear"


def references(manifests: list[Manifest]) -> Iterator[str]:
    """ConfigMaps, claims and service accounts that pods name are built, too; Secrets are made by hand."""
    there = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    for manifest in manifests:
        for place, template in pod_templates(manifest):
            spec = template["spec"]
            named = [("ConfigMap", v["configMap"]["name"]) for v in spec.get("volumes", []) if "configMap" in v]
            named += [
                ("PersistentVolumeClaim", v["persistentVolumeClaim"]["claimName"])
                for v in spec.get("volumes", []) if "persistentVolumeClaim" in v
            ]  # fmt: skip
            named += [("ServiceAccount", spec["serviceAccountName"])] if "serviceAccountName" in spec else []
            for kind, name in named:
                if (kind, name) not in there:
                    yield f"{title(manifest)}, {place}: there is no {kind} {name}"


def budgets(manifests: list[Manifest]) -> Iterator[str]:
    """Kubernetes counts what a budget's pods should be by their owner's scale, and Ray's kinds have none."""
    deployed = [m["spec"]["template"]["metadata"]["labels"] for m in of_kind(manifests, "Deployment")]
    for manifest in of_kind(manifests, "PodDisruptionBudget"):
        wanted = manifest["spec"]["selector"]["matchLabels"].items()
        if any(wanted <= labels.items() for labels in deployed):
            continue
        if "maxUnavailable" in manifest["spec"] or not isinstance(manifest["spec"].get("minAvailable"), int):
            yield f"{title(manifest)}: of Ray's pods a budget can only be a whole number of minAvailable"


def network(manifests: list[Manifest]) -> Iterator[str]:
    """From outside of the namespace the operator alone reaches the dashboard, and nobody GCS and client."""
    policies = of_kind(manifests, "NetworkPolicy")
    if not any(not p["spec"]["podSelector"] and not p["spec"].get("ingress") for p in policies):
        yield "no NetworkPolicy that lets nobody in by default"
    for policy in policies:
        labels = policy["spec"]["podSelector"].get("matchLabels", {})
        if "ray.io/is-ray-node" not in labels:
            continue
        for rule in policy["spec"].get("ingress", []):
            for port, name in RAY_PORTS.items():
                if not any(p["port"] == port for p in rule.get("ports", [{"port": port}])):
                    continue
                for peer in rule.get("from", [{"ipBlock": {"cidr": "0.0.0.0/0"}}]):
                    if not _inside(peer) and not (port == 8265 and _operator(peer)):
                        yield f"{title(policy)}: {port} ({name}) is open to {peer}"


def _inside(peer: Manifest) -> bool:
    return peer.keys() == {"podSelector"}


def _operator(peer: Manifest) -> bool:
    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
    return namespace == OPERATOR and bool(peer.get("podSelector"))
