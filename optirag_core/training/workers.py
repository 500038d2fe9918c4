"""The workers that train a model together, and how its weights are spread over them.

Every worker plans the same steps and takes its share of each batch, so a training is the same on any number of them,
but for rounding and for the masks of dropout.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel


class Rows(Protocol):
    """A sequence, or a tensor by its first dimension."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Self: ...


Batch = TypeVar("Batch", bound=Rows)


@dataclass(frozen=True)
class Workers:
    """This process's place among the workers; the default is one alone.

    With more than one the caller has initialised `torch.distributed`, with a backend that takes tensors on `device`.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    parallelism: Literal["ddp", "fsdp"] = "ddp"

    @property
    def sharded(self) -> bool:
        """Whether each worker holds only its part of the weights."""
        return self.size > 1 and self.parallelism == "fsdp"

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """This worker's rows of a batch, and what they count.

        All workers compute for every batch, as they exchange weights and gradients while they do. One that is left
        without rows computes the first one again, which counts 0.
        """
        mine = batch[self.rank :: self.size]
        return (mine, 1.0) if len(mine) else (batch[:1], 0.0)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all workers, on this worker's device."""
        total = values.detach().to(self.device, copy=True)
        if self.size > 1:
            dist.all_reduce(total)
        return total


def parallelize(
    module: nn.Module, workers: Workers, *, blocks: Iterable[nn.Module] = (), dtype: torch.dtype | None = None
) -> nn.Module:
    """Move a module to the workers' device, whole (DDP) or in parts (FSDP2, arXiv:2304.11277).

    Its own forward is the root's: parameters that are read past it would be parts under FSDP2. Gradients are averaged.

    Args:
        blocks: parts of the module that FSDP2 brings together one at a time.
        dtype: of the weights that FSDP2 hands around and computes with; default: their own. Gradients are reduced in
            float32.
    """
    if not workers.sharded:
        module.to(workers.device)
        if workers.size == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False)
    mesh = init_device_mesh(workers.device.type, (workers.size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for part in (*blocks, module):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    return module.to(workers.device)


def spread_columns(embedding: nn.Embedding, workers: Workers) -> None:
    """Give every worker some columns of an embedding, on its device.

    The module around it computes with `columns` of it, and adds up over the workers what the columns give.
    """
    embedding.to(workers.device)
    if workers.size > 1:
        mesh = init_device_mesh(workers.device.type, (workers.size,))
        embedding.weight = nn.Parameter(distribute_tensor(embedding.weight.detach(), mesh, [Shard(1)]))


def columns(embedding: nn.Embedding) -> Tensor:
    """This worker's part of the weight, with a gradient."""
    weight = embedding.weight
    return weight.to_local() if isinstance(weight, DTensor) else weight


def gathered(module: nn.Module, *, trained_only: bool) -> dict[str, Tensor]:
    """A copy of the weights on the CPU of rank 0, whole; nothing on the others. All workers must call."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=trained_only)
    weights: dict[str, Any] = get_model_state_dict(module, options=options)
    # torch leaves a frozen weight's second name (tied embeddings), and buffers.
    wanted = trained_names(module) if trained_only else weights.keys()
    return {name: tensor.detach().clone() for name, tensor in weights.items() if name in wanted}


def trained_names(module: nn.Module) -> set[str]:
    """Names of the weights that learn, as in the module before it was made parallel."""
    whole = module.module if isinstance(module, DistributedDataParallel) else module
    return {name for name, weight in whole.named_parameters(remove_duplicate=False) if weight.requires_grad}


def gradient_scale(module: nn.Module, workers: Workers) -> int:
    """What undoes the mean that a parallel module takes of the workers' gradients: the parts of a loss add up."""
    return workers.size if isinstance(module, (DistributedDataParallel, FSDPModule)) else 1


def synchronized(module: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Whether the next backward pass exchanges gradients: once per step is enough."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(now)
    if isinstance(module, DistributedDataParallel) and not now:
        return module.no_sync()
    return nullcontext()
