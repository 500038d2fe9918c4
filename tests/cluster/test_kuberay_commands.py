"""What manifests run, mount, name and ask for is there, and fits together."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.serve.schema import ServeDeploySchema

from optirag_core.config.settings import Settings
from optirag_core.config_file import load_settings
from ray_jobs.command import parse
from ray_jobs.pipeline import STAGES
from serve_apps import front
from serve_apps.app import Arguments
from tests.cluster.manifests import (
    OVERLAYS,
    ROOT,
    Manifest,
    cluster_spec,
    job_spec,
    of_kind,
    one,
    plain_name,
    pod_templates,
    title,
)

SETTINGS = "/etc/optirag/settings/settings.yaml"


def test_there_is_a_ray_job_for_each_stage_and_the_night(manifests):
    named = {manifest["metadata"]["name"].removeprefix("optirag-") for manifest in of_kind(manifests, "RayJob")}

    assert named == {stage.__name__.replace("_", "-") for stage in STAGES} | {"nightly"}


def test_every_cluster_is_that_of_the_ray_cluster(prod):
    """One description of the machines, but for what an overlay says of some."""
    source = one(prod, "RayCluster", "optirag")["spec"]
    for manifest in of_kind(prod, "RayJob", "RayService", "RayCronJob"):
        cluster = cluster_spec(manifest)
        assert cluster["workerGroupSpecs"][0] == source["workerGroupSpecs"][0], title(manifest)
        assert (cluster["workerGroupSpecs"][1] == source["workerGroupSpecs"][1]) is ("tune-llm" not in title(manifest))
        assert ("gcsFaultToleranceOptions" in cluster) is (manifest["kind"] == "RayService")


def test_rays_autoscaler_knows_of_gpus_that_are_not_there_yet(prod):
    types = _derive_autoscaling_config_from_ray_cr(one(prod, "RayCluster", "optirag"))["available_node_types"]

    assert types["headgroup"]["resources"]["CPU"] == 0
    assert "GPU" not in types["headgroup"]["resources"]
    assert types["cpu"]["resources"] == {"CPU": 16, "memory": 64 * 2**30}
    assert types["a100"]["resources"] == {"CPU": 8, "GPU": 1, "memory": 96 * 2**30, "accelerator_type:A100": 1}
    assert (types["a100"]["min_workers"], types["a100"]["max_workers"]) == (0, 16)


def test_what_the_settings_ask_for_fits_on_the_nodes(prod, prod_settings):
    group = one(prod, "RayCluster", "optirag")["spec"]["workerGroupSpecs"][1]
    actors, workers = prod_settings.actors, prod_settings.training.llm
    assert actors.accelerator_type == workers.accelerator_type == "A100"
    assert actors.num_scorers * actors.num_gpus_per_scorer <= group["maxReplicas"]
    assert actors.num_cpus_per_scorer <= int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])

    tuning = one(prod, "RayJob", "optirag-tune-llm")["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]
    whole = tuning["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert workers.num_workers == tuning["maxReplicas"] * int(whole["nvidia.com/gpu"])
    assert workers.num_workers * workers.num_cpus_per_worker <= int(whole["cpu"])


@pytest.fixture
def settings_file(manifests: list[Manifest], tmp_path: Path) -> Path:
    """What pods find at SETTINGS."""
    file = tmp_path / "settings.yaml"
    file.write_text(one(manifests, "ConfigMap", "optirag-settings")["data"]["settings.yaml"], encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def prod_settings() -> Settings:
    return load_settings(OVERLAYS / "prod" / "settings.yaml", [])


def test_production_has_the_settings_of_the_cluster_config(prod_settings):
    """Its own are where things are, the endpoint's replicas, and the bounds of a night."""
    shipped = load_settings(ROOT / "ray_jobs/configs/a100-cluster.yaml", [("data", "/mnt/data/bookcrossing")])
    own = {"workspace": prod_settings.workspace, "serving": prod_settings.serving, "compare": prod_settings.compare}

    assert shipped.model_copy(update=own) == prod_settings
    assert prod_settings.compare.has_bounds


def test_what_a_training_scores_is_not_what_readers_get(manifests, settings_file):
    """Else the night after it would be compared with the test split, and held."""
    pointers = {command.partition("--run.pointer ")[2] for command in commands(manifests) if ".evaluate" in command}
    assert pointers == {"LATEST-test"}
    assert any("ray_jobs.score" in command and "LATEST-test" in command for command in commands(manifests))


def commands(manifests: list[Manifest]) -> list[str]:
    return [job_spec(manifest)["entrypoint"] for manifest in of_kind(manifests, "RayJob", "RayCronJob")]


def test_an_entrypoint_names_a_job_and_valid_settings(manifests, settings_file):
    for command in commands(manifests):
        python, flag, module, *arguments = shlex.split(
            command.replace(SETTINGS, str(settings_file)).replace("$(date -u +%F)", "2026-11-30")
        )
        assert (python, flag) == ("python", "-m")
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
        settings, _ = parse(arguments)
        assert settings.ray.address == "auto" and settings.workspace.startswith("s3://")
        assert (settings.run.name == "2026-11-30") is ("--run.name" in command)


@pytest.mark.thorough
def test_an_entrypoint_runs_dry_as_ray_runs_it(manifests, settings_file):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in sorted(set(commands(manifests))):
        line = f"{command.replace(SETTINGS, str(settings_file))} --dry-run"
        done = subprocess.run(
            line, shell=True, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_the_endpoint_is_one_that_serve_and_the_app_take(manifests, settings_file):
    config = yaml.safe_load(one(manifests, "RayService", "optirag")["spec"]["serveConfigV2"])
    schema = ServeDeploySchema.model_validate(config)
    shipped = yaml.safe_load((ROOT / "serve_apps" / "config.yaml").read_text())["applications"][0]

    [application] = schema.applications
    assert application.import_path == shipped["import_path"]
    arguments = Arguments(**application.args)
    assert arguments.config == SETTINGS and not arguments.insecure_no_auth
    assert load_settings(settings_file, list(arguments.settings.items())).serving.num_scorers >= 1
    ports = cluster_spec(one(manifests, "RayService", "optirag"))["workerGroupSpecs"][0]["template"]["spec"]
    assert {"name": "serve", "containerPort": schema.http_options.port} in ports["containers"][0]["ports"]


def test_the_front_is_started_as_its_command_line_wants(manifests, settings_file):
    container = one(manifests, "Deployment", "optirag-front")["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "serve_apps.front"]

    given, rest = front._parser().parse_known_args([a.replace(SETTINGS, str(settings_file)) for a in container["args"]])
    assert given.backend == ["optirag-serve-svc:8000"]  # KubeRay's: name of the RayService, port `serve`
    assert given.port == container["ports"][0]["containerPort"]
    assert bool(given.tls_certificate) is (container["readinessProbe"]["httpGet"]["scheme"] == "HTTPS")
    assert parse(rest)[0].serving.max_body_bytes


def test_the_mounts_are_where_things_are_looked_for(manifests):
    mounted = ("/etc/optirag/settings", "/etc/optirag/tokens", "/etc/optirag/aws", "/mnt", "/tmp")
    for manifest in of_kind(manifests, "RayCluster", "RayService", "RayJob"):
        for place, template in pod_templates(manifest):
            if place != "submitter":
                mounts = template["spec"]["containers"][0]["volumeMounts"]
                assert tuple(mount["mountPath"] for mount in mounts) == mounted, title(manifest)


def test_schedules_start_templates_that_are_there_and_names_stay_short_enough(manifests):
    templates = {m["metadata"]["name"]: m["spec"] for m in of_kind(manifests, "RayJob")}
    for cron in of_kind(manifests, "CronJob"):
        starter = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
        for name in starter["args"]:
            assert templates[name]["suspend"] is True
            assert len(f"{cron['metadata']['name']}-29402280-{name.removeprefix('optirag-')}") <= 47
        script = one(manifests, "ConfigMap", "optirag-start")["data"]
        assert starter["command"][-1].rpartition("/")[2] in script


def test_the_documents_name_every_secret(manifests):
    readme = (OVERLAYS.parent / "README.md").read_text(encoding="utf-8")
    for name in set(_secret_names(manifests)):
        assert f"`{name}`" in readme, name


def _secret_names(manifests: list[Manifest]) -> list[str]:
    text = json.dumps([m for m in manifests if plain_name(m) != "optirag-start"])
    found = [part.split('"')[1] for part in text.split('"secretName": ')[1:]]
    return found + [json.loads(part.split("}")[0] + "}")["name"] for part in text.split('"secretKeyRef": ')[1:]]
