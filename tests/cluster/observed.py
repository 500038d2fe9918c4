"""What dashboards, alerts and docs name, and what a running Ray shows: for tests of either against the other."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import ray
import yaml
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
FILES = ROOT / "cluster" / "observability"
DASHBOARDS = sorted(FILES.glob("grafana-*.json"))


def panels(dashboard: Path) -> list[dict]:
    return json.loads(dashboard.read_text(encoding="utf-8"))["panels"]


def rules() -> list[dict]:
    groups = yaml.safe_load((FILES / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> dict[str, str]:
    """Title of a panel, or name of an alert, with a number -> PromQL without Grafana's variables."""
    found = {rule["alert"]: rule["expr"] for rule in rules()}
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            for target in panel["targets"]:
                query = target["expr"].replace("$run", ".*").replace("$window", "5m")
                found[f"{dashboard.stem}: {panel['title']} {target['refId']}"] = query
    return found


def documented(header: str) -> dict[str, list[str]]:
    """First column -> further columns, of the tables of docs/observability.md that begin like this."""
    rows, inside = {}, False
    for line in (ROOT / "docs" / "observability.md").read_text(encoding="utf-8").splitlines():
        inside = line.startswith("|") and (inside or line.startswith(f"| {header} |"))
        if inside and line.startswith("| `"):
            first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
            rows[first.strip("`")] = rest
    return rows


@dataclass
class Seen:
    """What the metrics ports have shown: name of a metric -> type; name of a series -> its labels."""

    types: dict[str, str] = field(default_factory=dict)
    labels: dict[str, set[str]] = field(default_factory=dict)

    def add(self, text: str) -> None:
        for family in text_string_to_metric_families(text):
            suffix = "_total" if family.type == "counter" else ""
            self.types[family.name + suffix] = family.type
            for sample in family.samples:
                self.labels.setdefault(sample.name, set()).update(sample.labels)

    def own(self) -> dict[str, str]:
        return {name: kind for name, kind in self.types.items() if name.startswith(("ray_optirag_", "optirag_"))}


@contextmanager
def scraping(seen: Seen) -> Iterator[None]:
    """Ask the session's Ray for its metrics all the time: a process takes its own along when it ends."""
    [node] = ray.nodes()
    url, done = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", threading.Event()

    def scrape() -> None:
        while not done.wait(0.5):
            with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
                seen.add(answer.read().decode())

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        yield
    finally:
        done.set()
        scraper.join()


def awaited(there: Callable[[], bool]) -> bool:
    """Whether it comes true within half a minute."""
    until = time.monotonic() + 30
    while not (found := there()) and time.monotonic() < until:
        time.sleep(0.2)
    return found


@contextmanager
def push_gateway() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """URL of a server that takes what is pushed; and that: method, path, body."""
    pushed: list[tuple[str, str, str]] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            pushed.append((self.command, self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", pushed
        server.shutdown()
