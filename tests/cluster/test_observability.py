"""Dashboards, alerts and scrape configs by themselves: their form, their docs, and what Prometheus makes of them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations

import pytest
import yaml

from tests.cluster.observed import DASHBOARDS, FILES, ROOT, documented, panels, queries, rules

WIDTH = 24  # columns of Grafana's grid


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_laid_out_and_understood(dashboard):
    whole = json.loads(dashboard.read_text(encoding="utf-8"))
    shown = whole["panels"]

    assert len({panel["id"] for panel in shown}) == len({panel["title"] for panel in shown}) == len(shown)
    for panel in shown:
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        place = panel["gridPos"]
        assert min(place.values()) >= 0 and place["x"] + place["w"] <= WIDTH, panel["title"]
    for one, other in combinations((panel["gridPos"] for panel in shown), 2):
        apart = (
            one["x"] + one["w"] <= other["x"], other["x"] + other["w"] <= one["x"],
            one["y"] + one["h"] <= other["y"], other["y"] + other["h"] <= one["y"],
        )  # fmt: skip
        assert any(apart), (one, other)
    named = set(re.findall(r"\$\{?(\w+)", json.dumps(shown)))
    assert named == {variable["name"] for variable in whole["templating"]["list"]}


def test_what_the_issue_asks_for_is_shown():
    titles = {panel["title"] for dashboard in DASHBOARDS for panel in panels(dashboard)}
    assert titles >= {
        "Pairs per second", "GPU utilisation", "Mean exit layer", "Exit layers", "Rejected pairs per second",
        "Tokens that wait in the engines", "Time since the last receipt", "Calls per second", "Seconds per call",
        "Refused", "Calls in a scorer", "Cold starts", "Events are known until",
    }  # fmt: skip


def test_every_alert_is_documented():
    assert {rule["alert"] for rule in rules()} == set(documented("alert"))
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] in ("page", "warn") for rule in rules())


def test_the_pod_monitors_ask_for_ports_that_the_pods_name():
    monitors = list(yaml.safe_load_all((FILES / "podmonitor.yaml").read_text(encoding="utf-8")))
    assert monitors[0]["spec"]["selector"] == {"matchLabels": {"ray.io/is-ray-node": "yes"}}
    assert {end["port"] for monitor in monitors for end in monitor["spec"]["podMetricsEndpoints"]} == {"metrics"}
    cluster = (ROOT / "cluster" / "kuberay" / "base" / "cluster.yaml").read_text(encoding="utf-8")
    containers = [each for each in _mappings(yaml.safe_load(cluster)) if str(each.get("name")).startswith("ray-")]
    assert len(containers) >= 2
    for container in containers:
        assert "metrics" in [port["name"] for port in container["ports"]], container["name"]


def _mappings(value: object) -> Iterator[dict]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _mappings(inner)


def promtool(*arguments: object) -> None:
    if (program := shutil.which("promtool")) is None:
        pytest.skip("no promtool: it comes with Prometheus, e.g. Debian's package `prometheus`")
    checked = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_takes_the_configuration_and_the_rules():
    promtool("check", "config", FILES / "prometheus.yaml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", FILES / "alerts.yaml")


def test_the_alerts_fire_when_they_should():
    tested = yaml.safe_load((FILES / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    fired = {each["alertname"] for test in tested for each in test["alert_rule_test"] if each["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules()}
    promtool("test", "rules", FILES / "alerts_test.yaml")


def test_prometheus_reads_every_query(tmp_path):
    recorded = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries().values())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    promtool("check", "rules", tmp_path / "rules.yaml")
