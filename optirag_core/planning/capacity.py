"""How many GPUs a run of so many users asks for, or how many hours, what it costs, and what else it needs."""

import math
from dataclasses import dataclass

import torch

from optirag_core.artifacts import Workspace
from optirag_core.config.settings import Settings
from optirag_core.engine.certificate import Calibration
from optirag_core.engine.cost import ModelShape
from optirag_core.errors import ArtifactError, ConfigError, StorageError
from optirag_core.inference.policy import CALIBRATED
from optirag_core.planning.accelerators import GIB, HOUR_S, Accelerator, accelerator
from optirag_core.planning.counts import Counts
from optirag_core.planning.llm import num_parameters, planned_config
from optirag_core.planning.load import Load, Nodes
from optirag_core.planning.lookups import IndexCost, Lookups
from optirag_core.planning.measured import RECEIPTS_PER_S, SHARD_OVERHEAD_S
from optirag_core.planning.memory import scoring_memory
from optirag_core.planning.sharding import attempts_needed, best_shard_s
from optirag_core.planning.simulation import Cluster
from optirag_core.planning.work import scoring_flops


@dataclass(frozen=True)
class Scorers:
    """The GPUs of a run and its time."""

    number: int
    planning_s: float  # before any node is asked for
    start_s: float
    scoring_s: float
    commit_s: float

    @property
    def hours(self) -> float:
        return (self.planning_s + self.start_s + self.scoring_s + self.commit_s) / HOUR_S

    @property
    def gpu_hours(self) -> float:
        """Paid for: from the nodes' start to the commit."""
        return self.number * (self.start_s + self.scoring_s + self.commit_s) / HOUR_S


@dataclass(frozen=True)
class Capacity:
    """A run and what it needs."""

    settings: Settings
    llm: str  # whose shape
    num_parameters: int
    counts: Counts
    flops_share: float
    flops_share_source: str
    gpu: Accelerator
    utilization: float
    load: Load
    lookups: Lookups
    scorers: Scorers
    scorer_gib: float  # memory of one GPU that is used
    cluster: Cluster  # as it is simulated, without start-up
    shard_s: float  # what a shard should take

    @property
    def num_nodes(self) -> int:
        return math.ceil(self.scorers.number / self.settings.plan.node.gpus)

    @property
    def pairs_per_s(self) -> float:
        return self.load.pairs / self.scorers.scoring_s

    @property
    def shards_per_s(self) -> float:
        return self.load.num_shards / self.scorers.scoring_s

    @property
    def prompt_cores(self) -> float:
        search_s = self.lookups.index.search_s if self.lookups.index else 0.0
        return self.pairs_per_s / self.load.candidates * self.load.prompt_core_s(search_s)

    @property
    def object_store_gib(self) -> float:
        """Prompts that scorers hold or wait for, of the whole cluster: one shard more than each has in flight."""
        shards = self.scorers.number * (self.cluster.in_flight + 1)
        return shards * self.load.shard_users * self.load.prompt_bytes / GIB

    @property
    def prompts_gbit_s(self) -> float:
        """Into one node's scorers."""
        bytes_per_s = self.pairs_per_s / self.load.candidates * self.load.prompt_bytes
        return bytes_per_s / self.num_nodes * 8 / 1e9

    @property
    def node_gib(self) -> float:
        """Artifacts that a node copies once: the LLM, and what prompts are looked up in."""
        weights = self.num_parameters * getattr(torch, self.settings.engine.dtype).itemsize / GIB
        return weights + self.lookups.gib

    @property
    def best_pairs_per_shard(self) -> int:
        """For shards of `shard_s`, in hundreds."""
        pairs = self.shard_s * self.load.pairs_per_scorer_second
        return max(100, round(pairs / 100) * 100)

    @property
    def attempts(self) -> int:
        """How often a shard of that length should be allowed to begin."""
        return attempts_needed(self.cluster, shard_s=self.shard_s, num_shards=self.load.scorer_s / self.shard_s)


def plan_capacity(settings: Settings, counts: Counts) -> Capacity:
    """Plan a run of `plan.pairs` pairs.

    Args:
        counts: of which only the tokens count here.

    Raises:
        ConfigError: there are no figures of the GPU, the hours are over before anything is scored, or the certified
            policy runs no layer.
        ModelError: as `planned_config`.
    """
    plan, node = settings.plan, settings.plan.node
    config, llm = planned_config(settings)
    shape, parameters = ModelShape.of(config), num_parameters(config)
    gpu = accelerator(plan.accelerator_type or settings.actors.accelerator_type)
    utilization = plan.scoring_utilization or gpu.scoring_utilization
    share, source = flops_share(settings)
    candidates = plan.candidates_per_user
    load = Load(
        users=plan.pairs / candidates, candidates=candidates, prefix_tokens=counts.prefix_tokens,
        suffix_tokens=counts.suffix_tokens, pairs_per_shard=settings.run.pairs_per_shard,
        user_flops=share * scoring_flops(shape, 1, candidates, counts.prefix_tokens, counts.suffix_tokens),
        scorer_flops_per_s=gpu.peak_flops[settings.engine.dtype] * utilization,
    )  # fmt: skip
    nodes = Nodes(node.losses_per_hour, node.return_s + node.start_s, node.slow_share, node.slow_factor)
    scorers = scorers_of(load, nodes, start_s=node.start_s, hours=plan.hours, gpus=plan.gpus)
    cluster = Cluster(
        scorers.number, node.gpus, losses_per_node_hour=node.losses_per_hour, return_s=node.return_s + node.start_s,
        slow_share=node.slow_share, slow_factor=node.slow_factor,
    )  # fmt: skip
    width, dtype = settings.retriever.embedding_dim, getattr(torch, settings.engine.dtype)
    index = IndexCost.of(settings.index, load.users, width)
    return Capacity(
        settings, llm, parameters, counts, share, source, gpu, utilization, load,
        Lookups(load.users, plan.interactions_per_user, width, index), scorers,
        scoring_memory(shape, parameters * dtype.itemsize, settings.engine.max_tokens_in_flight, dtype) / GIB,
        cluster, best_shard_s(
            cluster, work_s=load.scorer_s, overhead_s=SHARD_OVERHEAD_S.value, driver_s=1 / RECEIPTS_PER_S.value
        ),
    )  # fmt: skip


def scorers_of(load: Load, nodes: Nodes, *, start_s: float, hours: float, gpus: int | None) -> Scorers:
    """GPUs for the hours, or the time of so many GPUs.

    Raises:
        ConfigError: nothing of the hours is left for the scorers.
    """
    fixed_s = load.planning_s + start_s + load.commit_s
    work_s = load.scorer_s / nodes.speed(load.shard_s)
    if gpus is None:
        if fixed_s >= hours * HOUR_S:
            raise ConfigError(
                f"planning, start and commit alone take {fixed_s / HOUR_S:.1f} hours, asked are {hours:g}: give more "
                "--hours, or --gpus"
            )
        gpus = max(1, math.ceil(work_s / (hours * HOUR_S - fixed_s)))
    return Scorers(gpus, load.planning_s, start_s, work_s / gpus, load.commit_s)


def flops_share(settings: Settings) -> tuple[float, str]:
    """Of full depth's FLOPs, that of the exit policy; and a line that says whose it is.

    Raises:
        ConfigError: the certified policy runs no layer: there is nothing to plan GPUs for.
    """
    if settings.plan.flops_share is not None:
        return settings.plan.flops_share, "plan.flops_share"
    if settings.exit_policy.criterion != CALIBRATED:
        return 1.0, "full depth, as exit_policy.criterion names no certified policy"
    once = settings.storage.model_copy(update={"max_attempts": 1, "connect_timeout_s": 2.0})
    try:
        workspace = Workspace(settings.workspace, once)
        if not workspace.has("exit_policy"):
            return 1.0, "full depth, as no exit policy is certified yet"
        certified = Calibration.load(workspace.open("exit_policy").path).certified
    except (ArtifactError, StorageError):
        return 1.0, "full depth, as no certified exit policy can be read"
    if not certified.flops_share:
        raise ConfigError("the certified exit policy runs no layer, so that no GPU is needed: give plan.flops_share")
    return certified.flops_share, f"the certified exit policy, mean exit layer {certified.mean_exit_layer:.1f}"
