"""Settings that only plans read: what is to be scored, on which machines, and what is taken for granted of them."""

from typing import Annotated

from pydantic import Field

from optirag_core.config.section import Count, Positive, PositiveShare, Section, Share


class NodeSettings(Section):
    """One machine with GPUs; the defaults are those of AWS's p4d.24xlarge (8 A100 of 40 GB), as published."""

    gpus: Count = 8
    cpus: Count = Field(96, description="logical ones")
    memory_gib: Positive = 1152.0
    disk_gib: Positive = Field(7450.0, description="local disk, which keeps copies of artifacts")
    network_gbit_s: Positive = 400.0
    start_s: Positive = Field(300.0, description="from its order to its first shard: boot, image, artifacts, weights")
    losses_per_hour: Annotated[float, Field(ge=0.0)] = Field(
        0.05, description="how often one is taken away (spot): 0.05 is once in 20 hours; 0 for machines of one's own"
    )
    return_s: Positive = Field(120.0, description="until another one is there for a lost one, before its start_s")
    slow_share: Share = Field(0.02, description="share of the nodes that are slow")
    slow_factor: Annotated[float, Field(ge=1.0)] = Field(1.5, description="times as long as others is what they take")


class PlanSettings(Section):
    """What `--plan` and `ray_jobs.plan` take for granted; nothing else reads it."""

    accelerator_type: str | None = Field(
        None, description="GPU to plan for; default: the accelerator_type of the workers, and of the scorers"
    )
    gpu_memory_gib: Positive | None = Field(None, description="memory of one GPU; default: as published for its type")
    memory_share: PositiveShare = Field(
        0.9, description="share of a GPU's memory that may be filled: CUDA's own, ECC and fragments take the rest"
    )
    training_utilization: PositiveShare | None = Field(
        None, description="share of the peak FLOP/s that training reaches; default: 0.40 on GPUs, 0.75 on CPUs"
    )
    scoring_utilization: PositiveShare | None = Field(
        None, description="share of the peak FLOP/s that scoring reaches; default: 0.50 on GPUs, 0.75 on CPUs"
    )
    prompts: Count = Field(10_000, description="prompts to tune on, where neither the workspace nor shots tells")
    pairs: Count = Field(1_000_000, description="pairs to score")
    candidates_per_user: Count = 50
    hours: Positive = Field(8.0, description="of one run, from the planning to the commit")
    gpus: Count | None = Field(None, description="GPUs that there are; default: as many as the hours ask for")
    price_per_gpu_hour: Positive | None = Field(None, description="in any currency")
    flops_share: PositiveShare | None = Field(
        None, description="of full depth's FLOPs; default: the certified exit policy's where there is one, otherwise 1"
    )
    interactions_per_user: Positive = Field(20.0, description="that histories and the retriever's graph hold")
    driver_memory_gib: Positive = Field(64.0, description="main memory of the machine that the driver runs on")
    node: NodeSettings = NodeSettings()
