"""All that a training changes, and its way into files and back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_state_dict,
)

from optirag_core.errors import StorageError
from optirag_core.storage.local import named
from optirag_core.training.curve import Curve
from optirag_core.training.workers import Workers, gathered

WEIGHTS_FILE, OPTIMIZER_FILE, KEPT_FILE, VALUES_FILE = (
    "weights.safetensors", "optimizer.safetensors", "kept.safetensors", "values.json"
)  # fmt: skip


class Kept(Protocol):
    """What a training keeps of the epochs behind it, e.g. `BestWeights`."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON values, on rank 0."""

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from a `state`; other ranks than 0 get no tensors."""


@dataclass(frozen=True)
class Training:
    """A model, and what is known of it after some steps."""

    name: str  # of what is trained
    module: nn.Module  # as `parallelize` returned it
    optimizers: Sequence[optim.Optimizer]  # of the module's weights, made after `parallelize`
    kept: Kept
    workers: Workers = Workers()
    curve: Curve = field(default_factory=Curve)


def save_state(training: Training, folder: Path) -> None:
    """Write what is trained as rank 0's files; all workers must call.

    Raises:
        StorageError: there is no room for them.
    """
    weights = gathered(training.module, trained_only=True)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    optimizer: dict[str, Any] = get_optimizer_state_dict(training.module, training.optimizers, options=options)
    if training.workers.rank:
        return
    moments = {f"{name}/{key}": tensor for name, state in optimizer["state"].items() for key, tensor in state.items()}
    kept, values = training.kept.state()
    with named(folder):
        try:
            for file, tensors in ((WEIGHTS_FILE, weights), (OPTIMIZER_FILE, moments), (KEPT_FILE, kept)):
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file)
        except SafetensorError as error:
            raise StorageError(f"{folder}: a checkpoint cannot be written: {error}") from None
        text = json.dumps({"curve": training.curve.state(), "kept": values})
        (folder / VALUES_FILE).write_text(text, encoding="utf-8")


def saved_names(folder: Path) -> set[str]:
    """Names of the weights that `save_state` has written."""
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
        return set(file.keys())


def load_state(training: Training, folder: Path) -> None:
    """Take over what `save_state` has written, on any number of workers; all of them must call."""
    options = StateDictOptions(ignore_frozen_params=True)
    now: dict[str, Any] = get_optimizer_state_dict(training.module, training.optimizers, options=options)
    weights: dict[str, Any] = load_file(folder / WEIGHTS_FILE)
    state: dict[str, Any] = {}
    for path, tensor in load_file(folder / OPTIMIZER_FILE).items():
        name, _, key = path.rpartition("/")
        state.setdefault(name, {})[key] = tensor
    set_state_dict(
        training.module,
        training.optimizers,
        model_state_dict=weights,
        optim_state_dict={"state": state, "param_groups": now["param_groups"]},
        options=StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False),
    )
    values: dict[str, Any] = json.loads((folder / VALUES_FILE).read_text(encoding="utf-8"))
    training.kept.restore({} if training.workers.rank else load_file(folder / KEPT_FILE), values["kept"])
    training.curve.restore(values["curve"])
