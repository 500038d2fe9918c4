"""What a batch keeps for its gradients: the LLM's own forward on tensors without contents, whose saved ones are added.

Bytes are linear in rows of one length and in layers, so two of each give all:

    bytes(B, N) = fixed + B row + N (layer + B layer_row)

`layer` are weights that autocast has cast; `layer_row` the activations of one layer. With recompute a layer keeps its
input alone, and one layer at a time its activations (arXiv:1604.06174).

Shapes: B rows, T tokens of each, N layers, D model width, A answers, R shown ratings of a row.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig

from optirag_core.config.settings import Settings
from optirag_core.planning.llm import Way, computes_in, meta_model, weights_dtype
from optirag_core.training.answers import AnswerLoss
from optirag_core.training.packing import PackedBatch


@dataclass(frozen=True)
class Row:
    """One row of a training batch."""

    tokens: int
    answers: int
    ratings: int


BACKWARD_SHARE = 0.25
"""Gradients of a layer's states while it is differentiated, of what it keeps: measured peaks are then within a quarter
(`tests/planning/test_activations.py`)."""


@dataclass(frozen=True)
class Activations:
    """Bytes, by what they grow with."""

    fixed: int
    row: int
    layer: int
    layer_row: int
    layer_input: int  # of a row
    num_layers: int

    def kept(self, rows: float, *, recompute: bool) -> float:
        """Bytes of a batch between forward and backward; with recompute, while one layer is computed again."""
        kept = self.row + self.layer_row * self.num_layers
        if recompute:
            # A LoRA's first layer keeps less, as nothing learns below it: then `row` is negative.
            kept = max(self.row, 0) + self.layer_input * self.num_layers + self.layer_row
        return self.fixed + self.layer * self.num_layers + rows * kept

    def peak(self, rows: float, *, recompute: bool) -> float:
        """Bytes of a batch when it takes most."""
        return self.kept(rows, recompute=recompute) + BACKWARD_SHARE * rows * self.layer_row


def activations(
    config: PreTrainedConfig, settings: Settings, way: Way, row: Row, *, sharded: bool, on_gpu: bool
) -> Activations:
    """
    Args:
        sharded: under FSDP2 weights come in the type that is computed in, and are not cast.
        on_gpu: dropout keeps a mask of one byte per element there, on CPUs one of the states' type.
    """
    weights, computed = weights_dtype(settings, way), computes_in(settings)
    dtype = computed if sharded else weights
    autocast = computed if computed != torch.float32 else None
    ratings = settings.llm.chosen.history_loss_weight > 0.0

    def saved(num_layers: int, rows: int) -> int:
        shallow = copy.deepcopy(config)
        shallow.num_hidden_layers = num_layers
        if getattr(shallow, "layer_types", None):
            shallow.layer_types = shallow.layer_types[:num_layers]
        model = meta_model(shallow, settings, way, dtype)
        if sharded:
            model.to(dtype)  # the adapters too
        if on_gpu:
            _use_gpu_dropout(model)
        return saved_bytes(AnswerLoss(model, (0, 1), autocast).train(), row, rows, ratings=ratings)

    one, two_rows, two_layers, both = saved(1, 1), saved(1, 2), saved(2, 1), saved(2, 2)
    layer_row = both - two_rows - two_layers + one
    layer = two_layers - one - layer_row
    of_row = two_rows - one - layer_row
    return Activations(
        fixed=one - of_row - layer - layer_row, row=of_row, layer=layer, layer_row=layer_row,
        layer_input=row.tokens * config.hidden_size * dtype.itemsize, num_layers=config.num_hidden_layers,
    )  # fmt: skip


def saved_bytes(module: nn.Module, row: Row, rows: int, *, ratings: bool) -> int:
    """Bytes that autograd keeps between an `AnswerLoss`'s forward and backward, without its parameters.

    Args:
        module: on the meta device.
    """
    with FakeTensorMode():  # on a pretended CPU, as the meta device has neither autocast nor the attention kernels
        module = _pretended(module)
        own = {tensor.untyped_storage()._cdata for tensor in module.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = module(_batch(row, rows), ratings=ratings)
        del outputs
    return sum(kept.values())


class _GpuDropout(nn.Module):
    """What GPUs compute for `nn.Dropout`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self._p = p

    def forward(self, states: Tensor) -> Tensor:
        return torch.native_dropout(states, self._p, True)[0]


def _use_gpu_dropout(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, part in module.named_children():
            if isinstance(part, nn.Dropout):
                module.add_module(name, _GpuDropout(part.p))


def _pretended(module: nn.Module) -> nn.Module:
    """A copy with parameters and buffers of the surrounding mode."""
    tensors: dict[int, Tensor] = {
        id(parameter): nn.Parameter(_empty(parameter), requires_grad=parameter.requires_grad)
        for parameter in module.parameters()
    }
    tensors |= {id(buffer): _empty(buffer) for buffer in module.buffers()}
    return copy.deepcopy(module, tensors)


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _batch(row: Row, rows: int) -> PackedBatch:
    ids = torch.zeros(rows, row.tokens, dtype=torch.int64)
    mask = torch.ones(rows, 1, row.tokens, row.tokens, dtype=torch.bool)
    answers = torch.zeros(rows * row.answers, dtype=torch.int64)
    ratings = torch.zeros(rows * row.ratings, dtype=torch.int64)
    return PackedBatch(ids, ids, mask, answers, answers, answers.float(), ratings, ratings)
