"""A real run and a real endpoint against dashboards, alerts and docs: metrics, labels, pushed figures, events."""

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.stubs import StubScore
from optirag_core.data.dataset import Dataset
from optirag_core.errors import RunHeld
from optirag_core.inference.opening import open_artifacts
from optirag_core.runs.work import begin
from ray_jobs.run_events import event
from ray_jobs.run_meters import RunMeters
from ray_jobs.score import score
from ray_jobs.shard_stages import open_run
from serve_apps.app import Doors
from serve_apps.contexts import ContextBuilder
from serve_apps.front import start_front
from serve_apps.local import started
from serve_apps.schemas import ScoreRequest
from serve_apps.scoring import ScorerReplica
from serve_apps.service import Service, Unanswered
from serve_apps.version import Version
from tests.cluster.observed import Seen, awaited, documented, push_gateway, queries, scraping
from tests.finished_run import changed
from tests.ray_jobs.test_shard_stream import planned_stubs
from tests.runs.small import identity

pytestmark = [pytest.mark.ray, pytest.mark.thorough]
NAME = re.compile(r"\b(?:ray|optirag|haproxy)_\w+")
MATCHED = re.compile(r"\b((?:ray|optirag|haproxy)_\w+)\{([^}]*)\}")
GROUPED = re.compile(r"\b(?:by|on) \(([\w, ]*)\)")
OWN_LABEL = re.compile(r"(?!otel_)[a-z_]+")  # Ray's are otel_scope_name, or WorkerId

NOT_HERE = {
    "ray_node_gpus_utilization": ("a GPU", "dashboard/modules/reporter/reporter_agent.py"),
    "ray_serve_deployment_replica_healthy": ("Ray Serve", "serve/_private/deployment_state.py"),
    "ray_serve_deployment_replica_starts_total": ("Ray Serve", "serve/_private/replica.py"),
}
"""What a run and an endpoint inside of one process cannot show: what it needs, and the file of Ray that defines it."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    with push_gateway() as gateway:
        yield gateway


@pytest.fixture(scope="module")
def observed(own_workspace, tmp_path_factory, gateway):
    """A run of many shards, its manifest, and what was seen of it."""
    seen, folder = Seen(), tmp_path_factory.mktemp("events")
    events = folder / "events.jsonl"
    tracking = {"events": str(events), "pushgateway": gateway[0]}
    settings = changed(own_workspace, run={"name": "observed", "pairs_per_shard": 4}, tracking=tracking)
    with scraping(seen):
        manifest = score(settings)
        _fail_once(folder)
        assert awaited(lambda: "ray_optirag_shard_failures_total" in seen.labels)
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    return settings, manifest, seen, lines


def _fail_once(folder: Path) -> None:
    """What a driver counts that hears of a scorer's death."""
    run, plan, files, _ = planned_stubs(str(folder), StubScore)
    with begin(run, identity(plan), plan, files, lease_s=1.0) as work:
        RunMeters(work).failed([event("shard_begun", stage="score"), event("shard_failed", stage="score")])


@pytest.fixture(scope="module")
def endpoint_seen(own_workspace) -> Seen:
    """What the endpoint's parts count in this process: a call each of a known and of an unknown user, and a refusal."""
    seen, version = Seen(), Version.of(changed(own_workspace, serving={"max_calls": 1}))
    scorer = ScorerReplica(version)
    service = Service(scorer, ContextBuilder(version), version, own_workspace.serving)
    dataset = Dataset.load(open_artifacts(own_workspace, "dataset")["dataset"].path)
    user_id, item_id = (dataset.interactions[name][0].as_py() for name in ("user_id", "item_id"))

    async def call() -> list[object]:
        asked = [ScoreRequest(user_id=user, item_ids=[item_id]) for user in (user_id, "nobody knows them", user_id)]
        answers = [await service.score(asked[0]), await service.score(asked[1])]
        return answers + await asyncio.gather(*map(service.score, asked), return_exceptions=True)

    with scraping(seen):
        answers = asyncio.run(call())
        wanted = {name for name in documented("metric") if name.startswith("ray_optirag_serving_")}
        assert awaited(lambda: wanted <= set(seen.types)), wanted - set(seen.types)
    assert [isinstance(answer, Unanswered) for answer in answers].count(True) == 2
    return seen


@pytest.fixture(scope="module")
def front_seen() -> Seen:
    """What a front proxy shows that nobody has called."""
    seen, ports = Seen(), []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            ports.append(taken.getsockname()[1])
    with start_front("127.0.0.1", 0, [f"127.0.0.1:{ports[0]}"], 1 << 20, metrics=f"127.0.0.1:{ports[1]}"):
        seen.add(httpx.get(f"http://127.0.0.1:{ports[1]}/metrics").text)
    return seen


@pytest.mark.parametrize("name", NOT_HERE)
def test_what_cannot_be_seen_here_is_in_the_installed_ray(name):
    source = Path(ray.__file__).parent / NOT_HERE[name][1]
    assert f'"{name.removeprefix("ray_").removesuffix("_total")}"' in source.read_text(encoding="utf-8")


def test_every_metric_and_label_of_a_query_is_one_of_a_real_run(observed, endpoint_seen, front_seen, gateway):
    _, _, seen, _ = observed
    pushed = Seen()
    pushed.add(gateway[1][0][2])
    labels = seen.labels | endpoint_seen.labels | front_seen.labels | pushed.labels

    for title, query in queries().items():
        names = set(NAME.findall(re.sub(r"\{[^}]*\}", "", query)))
        assert names and names <= set(labels) | set(NOT_HERE), f"{title}: {names - set(labels)}"
        known = [labels[name] | {"instance"} for name in names - set(NOT_HERE)]
        for name, matchers in MATCHED.findall(query):
            if name not in NOT_HERE:
                assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= labels[name], f"{title}: {name}"
        if len(known) == len(names):
            for group in GROUPED.findall(query):
                assert all(set(group.replace(" ", "").split(",")) - {""} <= each for each in known), f"{title}: {group}"


def test_the_documented_metrics_are_those_that_there_are(observed, endpoint_seen, gateway):
    _, _, seen, _ = observed
    seen.add(gateway[1][0][2])
    found = seen.own() | endpoint_seen.own()
    labels = seen.labels | endpoint_seen.labels

    rows = documented("metric")
    assert set(rows) == set(found)
    for name, kind in found.items():
        told, own, _ = rows[name]
        series = f"{name}_count" if kind == "histogram" else name
        assert told == kind, name
        assert set(own.split(", ")) - {""} == {label for label in labels[series] if OWN_LABEL.fullmatch(label)}, name


def test_a_commit_is_pushed(observed, gateway):
    _, manifest, _, _ = observed
    [(method, path, body)] = gateway[1]
    values = {
        (sample.name, sample.labels["run"], sample.labels.get("outcome")): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    moment = values.pop(("optirag_committed_timestamp_seconds", "observed", None))

    assert (method, path) == ("PUT", "/metrics/job/optirag")
    assert abs(time.time() - moment) < 3600
    assert values == {
        ("optirag_committed_pairs", "observed", outcome): manifest["metrics"][outcome]
        for outcome in ("scored", "rejected")
    }


def fields_of(lines: Iterable[dict], name: str) -> list[set[str]]:
    return [set(line) for line in lines if line["event"] == name]


def test_a_run_tells_each_event_once(observed):
    settings, manifest, _, lines = observed
    metrics = manifest["metrics"]
    shards = [shard.number for shard in open_run(settings, "observed").plan().shards]
    told = [(line["event"], line.get("stage"), line.get("shard")) for line in lines]
    begun = [("shard_begun", stage, shard) for shard in shards for stage in ("build", "score")]
    finished = [("shard_finished", "score", shard) for shard in shards]

    assert len(shards) > 3
    assert told[0] == ("run_begun", None, None) and told[-1] == ("run_committed", None, None)
    assert sorted(told[1:-1]) == sorted(begun + finished)
    assert {(line["run"], line["run_id"]) for line in lines} == {("observed", metrics["run_id"])}
    assert {line["attempt"] for line in lines if "attempt" in line} == {1}
    times = {name: [line["time"] for line in lines if line["event"] == name] for name in ("run_begun", "run_committed")}
    assert times["run_begun"] <= times["run_committed"]


def test_the_lines_say_what_receipts_and_manifest_say_and_no_more(observed):
    settings, manifest, _, lines = observed
    metrics, folder = manifest["metrics"], Path(settings.workspace, "scores", "observed")
    finished = {line["shard"]: line for line in lines if line["event"] == "shard_finished"}

    for shard, line in finished.items():
        receipt = json.loads((folder / f"receipts/{shard:06}.json").read_text(encoding="utf-8"))
        exits = receipt["counts"]["exits"]
        depth = sum(int(layer) * count for layer, count in exits.items()) / max(1, receipt["scored"])
        assert (line["scored"], line["rejected"]) == (receipt["scored"], receipt["rejected"])
        assert (line["pairs"], line["rejects"]) == (
            receipt["scored"] + receipt["rejected"],
            receipt["counts"]["rejects"],
        )
        assert line["mean_exit_layer"] == pytest.approx(depth, abs=1e-4)
        assert line["seconds"] > 0
    assert sum(line["scored"] for line in finished.values()) == metrics["scored"]
    assert lines[0]["pairs"] == metrics["scored"] + metrics["rejected"]
    names = ("scored", "rejected", "rejects", "mean_exit_layer", "pairs_per_scorer_second")
    assert {name: lines[-1][name] for name in names} == {name: metrics[name] for name in names}

    common = {"event", "time", "host", "run", "run_id"}
    for name, (fields, _) in documented("event").items():
        named = set(re.findall(r"[a-z_]+", re.sub(r"\(.*?\)", "", fields)))
        assert all(each == common | named for each in fields_of(lines, name)), name


@pytest.mark.thorough
def test_a_run_that_is_held_back_is_committed_and_not_pushed(own_workspace, gateway, tmp_path):
    score(changed(own_workspace, run={"name": "monday"}))
    other = {"criterion": "confidence", "threshold": 0.5, "uncertified": True}
    tracking = {"events": str(tmp_path / "events"), "pushgateway": gateway[0]}
    tuesday = changed(own_workspace, run={"name": "tuesday"}, exit_policy=other, tracking=tracking)
    before = len(gateway[1])

    with pytest.raises(RunHeld):
        score(changed(tuesday, compare={"max_exit_changed": 0.0}))

    lines = [json.loads(line) for line in (tmp_path / "events").read_text(encoding="utf-8").splitlines()]
    assert [line["event"] for line in lines[-2:]] == ["run_committed", "run_stopped"]
    assert lines[-1]["error"] == "RunHeld"
    assert len(gateway[1]) == before


@pytest.mark.thorough
def test_serve_shows_its_replicas(own_workspace):
    actors = {"num_cpus_per_scorer": 0.2, "num_cpus_per_prompt_builder": 0.2, "torch_threads": 1}
    small = changed(own_workspace, actors=actors, serving={"num_ingresses": 1})
    seen = Seen()
    served = {name for name, (needs, _) in NOT_HERE.items() if needs == "Ray Serve"}
    own = {name for name in documented("metric") if name.startswith("ray_optirag_serving_")}
    with started(small, Doors(None, True)) as front, scraping(seen):
        asked = {"user_id": "nobody knows them", "item_ids": ["no such item"]}
        assert httpx.post(f"http://{front.host}:{front.port}/v1/score", json=asked, timeout=60).status_code == 200
        assert awaited(lambda: served <= set(seen.labels) and own <= set(seen.types)), (own | served) - set(seen.types)
    assert all("deployment" in seen.labels[name] for name in served)
