"""What a job asks of the cluster's nodes: compared with what they have before it starts, or waited for.

A cluster that grows on demand may have no GPU yet. The job then holds a placement group open, which is what the
autoscaler reads, until the nodes have joined. Not `ray.autoscaler.sdk.request_resources`: what it asks for is kept for
a job that was killed, GPUs included, and it has one list for the whole cluster, which Ray Data writes anew every 20 s.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from optirag_core.config.run import ActorsSettings, WorkersSettings
from optirag_core.errors import ResourcesMissing

log = logging.getLogger(__name__)
POLL_S = 1.0


@dataclass(frozen=True)
class Processes:
    """A number of processes of one kind."""

    kind: str
    number: int
    each: Mapping[str, float]  # what Ray reserves for one: resource -> amount


def check_actors(actors: ActorsSettings, wait_s: float) -> None:
    """
    Raises:
        ResourcesMissing: the nodes have no room for the scorers and prompt builders, also after `wait_s`.
    """
    _check(
        actors_asked(actors), wait_s,
        "actors.num_scorers, num_cpus_per_scorer, num_gpus_per_scorer, memory_gib_per_scorer, accelerator_type, "
        "num_prompt_builders or num_cpus_per_prompt_builder",
    )  # fmt: skip


def check_workers(kind: str, workers: WorkersSettings, wait_s: float) -> None:
    """The same of a training, `kind` of `TrainingSettings`.

    Raises:
        ResourcesMissing: the nodes have no room for the workers, also after `wait_s`; Ray Train would wait for ever.
    """
    _check(
        workers_asked(workers), wait_s,
        f"training.{kind}.num_workers, num_cpus_per_worker, num_gpus_per_worker or accelerator_type",
    )  # fmt: skip


def actors_asked(actors: ActorsSettings) -> list[Processes]:
    """Scorers and prompt builders."""
    scorer = {
        "CPU": actors.num_cpus_per_scorer,
        "GPU": actors.num_gpus_per_scorer,
        "memory": int((actors.memory_gib_per_scorer or 0) * 2**30),
        **_accelerator(actors.accelerator_type),
    }
    return [
        Processes("scorers", actors.num_scorers, scorer),
        Processes("builders", actors.num_prompt_builders, {"CPU": actors.num_cpus_per_prompt_builder}),
    ]


def workers_asked(workers: WorkersSettings) -> list[Processes]:
    """The workers of a training."""
    worker = {
        "CPU": workers.num_cpus_per_worker,
        "GPU": workers.num_gpus_per_worker,
        **_accelerator(workers.accelerator_type),
    }
    return [Processes("workers", workers.num_workers, worker)]


def lack(asked: Sequence[Processes], nodes: Sequence[Mapping[str, float]]) -> str | None:
    """What nodes lack in all, whatever runs on them now.

    Args:
        nodes: resource -> amount, of each.
    """
    for processes in asked:
        each = _positive(processes.each)
        for names in (*([name] for name in each), each):  # one resource by itself says more than all of them
            fit = sum(_fitting(node, {name: each[name] for name in names}) for node in nodes)
            if fit < processes.number:
                amounts = " and ".join(f"{each[name]:g} {name}" for name in names)
                return f"{fit} of {processes.number} {processes.kind} find {amounts} on the {len(nodes)} nodes"
    cpus = sum(processes.number * processes.each["CPU"] for processes in asked)
    if cpus > (there := sum(node.get("CPU", 0.0) for node in nodes)):
        kinds = " and ".join(processes.kind for processes in asked)
        return f"{kinds} ask for {cpus:g} CPU, the cluster has {there:g}"
    return None


def _check(asked: Sequence[Processes], wait_s: float, settings: str) -> None:
    lacking, waited = lack(asked, _nodes()), ""
    if lacking and wait_s:
        log.info("waiting for nodes, at most %g s: %s", wait_s, lacking)
        lacking = _lack_after(wait_s, asked)
        waited = f", after {wait_s:g} s of waiting (ray.wait_for_nodes_s; `ray status` says what the autoscaler does)"
    if lacking:
        raise ResourcesMissing(f"{lacking}{waited}: add nodes, or lower {settings}")


def _lack_after(wait_s: float, asked: Sequence[Processes]) -> str | None:
    """What is lacking when the nodes have joined, or when time is up."""
    deadline = time.monotonic() + wait_s
    bundles = [bundle for each in asked for bundle in each.number * [_positive(each.each)] if bundle]
    demand = placement_group(bundles)  # Ray removes it with this process, whatever ends that
    try:
        while (lacking := lack(asked, _nodes())) and time.monotonic() < deadline:
            time.sleep(POLL_S)
    finally:
        remove_placement_group(demand)
    return lacking


def _nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _accelerator(name: str | None) -> dict[str, float]:
    """The share of a node's accelerator type that Ray takes for a process on it."""
    return {f"accelerator_type:{name}": 0.001} if name else {}


def _positive(amounts: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in amounts.items() if amount}


def _fitting(node: Mapping[str, float], process: Mapping[str, float]) -> int:
    """How many processes a node has room for."""
    return int(min((node.get(name, 0.0) // amount for name, amount in process.items()), default=1e9))
