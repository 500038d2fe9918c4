"""What breaks first: each resource that a run needs against what there is, the scarcest first."""

from dataclasses import dataclass

from optirag_core.planning import measured
from optirag_core.planning.accelerators import HOUR_S
from optirag_core.planning.capacity import Capacity
from optirag_core.planning.load import REQUESTS_PER_SHARD

OBJECT_STORE_SHARE = 0.3 * 0.5
"""Ray keeps 30 % of a node's memory for its object store, and Ray Data fills half of that."""
S3_PUTS_PER_S, PUTS_PER_SHARD = 3500.0, 4
"""What S3 promises for one prefix, as AWS publishes; and puts among `REQUESTS_PER_SHARD`."""
PLANNING_SHARE = 0.1
"""Of the hours, that planning may take."""
DAY_S = 24 * HOUR_S
"""An index and a retriever should be made in."""


@dataclass(frozen=True)
class Limit:
    """Something that a run needs, and how much of it there is."""

    name: str
    needs: float
    has: float
    unit: str
    remedy: str  # what to set where it breaks
    rests_on: str

    @property
    def ratio(self) -> float:
        """Above 1 it breaks."""
        return self.needs / self.has


def limits(capacity: Capacity) -> list[Limit]:
    """All of them, the scarcest first."""
    made = [limit for each in (_of_driver, _of_nodes, _of_lookups) for limit in each(capacity)]
    return sorted(made, key=lambda limit: -limit.ratio)


def _of_driver(capacity: Capacity) -> list[Limit]:
    load, settings = capacity.load, capacity.settings
    larger = f"run.pairs_per_shard {capacity.best_pairs_per_shard:,} or more"
    put_rate = capacity.shards_per_s * PUTS_PER_SHARD
    return [
        Limit(
            "receipts at the driver", capacity.shards_per_s, measured.RECEIPTS_PER_S.value, "a second", larger,
            measured.RECEIPTS_PER_S.source,
        ),
        Limit(
            "driver's memory", load.driver_gib, settings.plan.driver_memory_gib, "GiB", larger,
            measured.DRIVER_MIB_PER_SHARD.source,
        ),
        Limit(
            "planning", load.planning_s / HOUR_S, PLANNING_SHARE * settings.plan.hours, "hours, a tenth of all",
            "several runs of a part of the users each, whose drivers plan at the same time; "
            "larger shards where uploads take most of it",
            measured.PLAN_S_PER_PAIR.source,
        ),
        Limit(
            "commit", load.commit_s / HOUR_S, PLANNING_SHARE * settings.plan.hours, "hours, a tenth of all", larger,
            measured.COMMIT_S_PER_SHARD.source,
        ),
        Limit(
            "puts on S3", put_rate, S3_PUTS_PER_S, "a second", larger,
            f"{PUTS_PER_SHARD} of the {REQUESTS_PER_SHARD} requests of a shard are puts; 3,500 a second for a prefix "
            "as AWS publishes",
        ),
        Limit(
            "a shard's time", load.shard_s * capacity.cluster.slow_factor, settings.run.stall_timeout_s, "s",
            "smaller shards, or a larger run.stall_timeout_s", "run.stall_timeout_s, by a slow node",
        ),
        Limit(
            "attempts of a shard", capacity.attempts, settings.run.max_attempts, "",
            "a larger run.max_attempts, smaller shards, or nodes that are lost less often",
            "so that lost nodes end 1 of 1,000 runs",
        ),
    ]  # fmt: skip


def _of_nodes(capacity: Capacity) -> list[Limit]:
    plan, nodes = capacity.settings.plan, capacity.num_nodes
    node, gpu_gib = plan.node, plan.gpu_memory_gib or capacity.gpu.memory_gib
    return [
        Limit(
            "a scorer's GPU", capacity.scorer_gib, gpu_gib * plan.memory_share, "GiB",
            "a larger GPU, or engine.max_tokens_in_flight", "docs/clusters.md, --plan",
        ),
        Limit(
            "object store", capacity.object_store_gib, nodes * node.memory_gib * OBJECT_STORE_SHARE, "GiB",
            "smaller shards; what does not fit goes to the nodes' disks", "Ray's defaults: 30 % of memory, half of it",
        ),
        Limit(
            "prompts into a node", capacity.prompts_gbit_s, node.network_gbit_s, "Gbit/s",
            "nodes with fewer GPUs", "4 bytes of each token",
        ),
        Limit(
            "cores for prompts", capacity.prompt_cores, nodes * node.cpus, "cores",
            "CPU nodes for prompt builders, or an index that reads fewer vectors: index.factory, nprobe",
            f"{measured.TOKENS_PER_CORE_S.source}; {measured.LOOKUPS_PER_S.source}",
        ),
        Limit(
            "artifacts on a node's disk", capacity.node_gib, node.disk_gib, "GiB", "nodes with larger disks",
            measured.HISTORY_BYTES.source,
        ),
    ]  # fmt: skip


def _of_lookups(capacity: Capacity) -> list[Limit]:
    lookups, settings = capacity.lookups, capacity.settings
    memory_gib = settings.plan.node.memory_gib * (1 - 2 * OBJECT_STORE_SHARE)
    epochs = settings.retriever.max_epochs
    limits = [
        Limit(
            "lookups in a node's memory", lookups.gib, memory_gib, "GiB",
            "an index with codes (IVF...,PQ32); what does not fit is read from disk", measured.HISTORY_BYTES.source,
        ),
        Limit(
            "memory to train the retriever", lookups.retriever_gib, memory_gib, "GiB",
            "more training.retriever.num_workers: each holds a part of the columns",
            measured.GRAPH_BYTES.source,
        ),
        Limit(
            "time to train the retriever", epochs * lookups.epoch_s / HOUR_S, DAY_S / HOUR_S, "hours",
            "training.retriever: more workers or a GPU; or fewer retriever.max_epochs",
            f"{measured.EPOCH_S.source}; {epochs} epochs on two cores",
        ),
        Limit(
            "writing the data set", lookups.prepare_s / HOUR_S, DAY_S / HOUR_S, "hours", "fewer users",
            measured.PREPARE_S_PER_USER.source,
        ),
    ]  # fmt: skip
    if lookups.index and lookups.index.build_s:
        hours, source = lookups.index.build_s / HOUR_S, lookups.index.rests_on[1].source
        limits.append(Limit("making the index", hours, DAY_S / HOUR_S, "hours", "index.gpu, or fewer lists", source))
    return limits
