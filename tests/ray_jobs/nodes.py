"""Nodes of a Ray cluster in processes of their own, which this process never joins.

They ask for a token. Each is ended by its process id: `ray stop` ends every Ray of the machine.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.autoscaler._private.monitor import BASE_READONLY_CONFIG

TIMEOUT_S = 600
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Node:
    """The process of `ray start --block`; its children are the node."""

    process: subprocess.Popen

    def processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def actors(self, name: str) -> list[psutil.Process]:
        """The node's workers that are actors of this class."""
        return [each for each in self.processes() if name in " ".join(_command(each))]

    def kill(self) -> None:
        """As if the machine were gone."""
        _kill(self.processes())
        self.process.wait()

    def end(self) -> None:
        processes = self.processes()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        _kill(processes)  # those that have not followed it yet
        self.process.wait()


@dataclass(frozen=True)
class Head(Node):
    address: str  # of the GCS
    dashboard: str
    environment: Mapping[str, str]  # of who may join or submit


@contextmanager
def head_node(num_cpus: int = 2, *, alone: bool = True, autoscaled: Mapping[str, Any] | None = None) -> Iterator[Head]:
    """A head node.

    Args:
        alone: on loopback; otherwise on every interface, as Ray has no clusters of several nodes on loopback.
        autoscaled: node type -> resources of a node: Ray's own autoscaler starts them as processes of this machine, at
            most two of each, when a job asks for them.
    """
    other = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in other}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",  # jobs run the head's `python`
        "RAY_AUTH_MODE": "token",
    }
    if alone:
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # or 127.0.0.1 becomes an address of every interface
    with tempfile.TemporaryDirectory(prefix="head-", dir="/tmp") as folder:  # paths of sockets have to be short
        token = Path(folder) / "token"
        token.write_text(f"{secrets.token_hex(16)}\n", encoding="utf-8")
        environment["RAY_AUTH_TOKEN_PATH"] = str(token)
        gcs, dashboard, client = free_ports(3)
        options = [
            "--head", "--port", gcs, "--dashboard-host", LOOPBACK, "--dashboard-port", dashboard,
            "--ray-client-server-port", client, "--temp-dir", folder,
        ]  # fmt: skip
        own = {}
        if autoscaled:
            config = Path(folder) / "autoscaler.json"
            config.write_text(json.dumps(_autoscaling(f"{LOOPBACK}:{gcs}", autoscaled)), encoding="utf-8")
            options += ["--autoscaling-config", str(config)]
            own = {"RAY_FAKE_CLUSTER": "1", "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID}
            own |= {"AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        process = _start(options, num_cpus, environment | own, Path(folder) / "head.log")
        head = Head(process, f"{LOOPBACK}:{gcs}", f"http://{LOOPBACK}:{dashboard}", environment)
        try:
            yield head
        finally:
            head.end()


@contextmanager
def further_node(head: Head, folder: Path, num_cpus: int = 2) -> Iterator[Node]:
    """A node that joins a head that is not alone, its files in `folder`, which it makes."""
    folder.mkdir()
    environment = {**head.environment, "TMPDIR": str(folder)}
    node = Node(_start(["--address", head.address], num_cpus, environment, folder / "node.log"))
    try:
        yield node
    finally:
        if node.process.poll() is None:
            node.end()


def _start(options: list[str], num_cpus: int, environment: Mapping[str, str], log: Path) -> subprocess.Popen:
    [agent] = free_ports(1)
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address", LOOPBACK,
        "--dashboard-agent-listen-port", agent, "--num-cpus", str(num_cpus),
        "--object-store-memory", str(200 * 2**20), "--disable-usage-stats", *options,
    ]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    wait_until(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None)
    assert process.poll() is None, log.read_text()
    return process


def _autoscaling(address: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """What `--autoscaling-config` takes for nodes that are processes of this machine."""
    nodes = {
        name: {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": 2}
        for name, resources in types.items()
    }
    head = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 0}
    provider = BASE_READONLY_CONFIG["provider"] | {"type": "fake_multinode", "disable_node_updaters": True}
    return BASE_READONLY_CONFIG | {
        "provider": provider | {"gcs_address": address}, "max_workers": 2 * len(types), "idle_timeout_minutes": 0.1,
        "available_node_types": {"ray.head.default": head, **nodes},
    }  # fmt: skip


def free_ports(number: int) -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(number)]
        return [str(each.getsockname()[1]) for each in sockets]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.cmdline()
    return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
