"""SparseGPT: one-shot pruning of an LLM's linear layers, which table 9 of the paper compares with (arXiv:2301.00774).

What a layer loses with a weight is made up for by its other weights, as far as the inputs of calibration prompts allow.

Shapes: T tokens, I inputs and O outputs of a linear layer.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from optirag_core.engine.decoder import Decoder, Flight
from optirag_core.engine.groups import UserGroup
from optirag_core.engine.layout import parts_of
from optirag_core.errors import DataError, ModelError

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
"""Those of table 9."""

DAMPENING = 0.01
"""lambda, as a share of the mean of the Hessian's diagonal: the authors' default."""

MAX_BLOCK_COLUMNS, MIN_BLOCKS = 128, 8
"""The paper's blocks are 128 columns wide, of thousands. One block for all is no better than magnitude pruning: on 128
random inputs it loses 0.266 of the outputs' norm, magnitude pruning 0.267, eight blocks 0.202."""

ROW_TOKENS = 8192
"""Of a user group that is longer, some candidates are calibrated on together."""


@torch.no_grad()
def prune(
    model: PreTrainedModel, groups: Sequence[UserGroup], *, modules: Sequence[str] = MODULES, sparsity: float = 0.5
) -> dict[str, float]:
    """Prune an LLM in place, one transformer layer after the other from the first on.

    The linear layers of a transformer layer are pruned together, with the inputs that they have behind the pruned
    layers below, as in the authors' code. Packed prompts count a prefix once, however many candidates it has.

    Args:
        groups: calibration prompts, of users that the LLM may learn from; their hidden states are kept in memory.
        modules: last names of the linear layers.
        sparsity: share of each one's weights that become 0.

    Returns:
        By layer and module, e.g. "3.self_attn.q_proj" of the third: ||WX - W'X||^2 / ||WX||^2 on those prompts.

    Raises:
        DataError: there is no prompt.
        ModelError: the LLM has no linear layer of one of the names.
    """
    parts = [part for number, group in enumerate(groups) for part in parts_of(group, number, ROW_TOKENS)]
    if not parts:
        raise DataError("no prompt to calibrate on: lower dataset.min_history or raise dataset.split.tune_share")
    decoder, lost = Decoder(model, window=0), {}
    flights = [decoder.embed([part]) for part in parts]
    for depth, layer in enumerate(model.base_model.layers):
        linear = _linear_layers(layer, modules)
        flights = [decoder.advance(flight, depth) for flight in flights]
        for name, gram in _grams(linear, decoder, flights).items():
            weight = linear[name].weight
            dense = weight.double()
            sparse = sparse_weight(dense, dampened(2.0 * gram), sparsity=sparsity, block_columns=_block_columns(gram))
            weight.copy_(sparse)
            lost[f"{depth + 1}.{name}"] = (_energy(dense - sparse, gram) / _energy(dense, gram)).item()
    return lost


def dampened(hessian: Tensor) -> Tensor:
    """H + lambda I, so that H can be inverted."""
    return hessian + DAMPENING * hessian.diagonal().mean() * torch.eye(len(hessian)).to(hessian)


def sparse_weight(weight: Tensor, hessian: Tensor, *, sparsity: float, block_columns: int) -> Tensor:
    """The weights that are left, adjusted (algorithm 1).

    Args:
        weight: [O, I] float64.
        hessian: [I, I] 2 X X^T + lambda I, positive definite.
        sparsity: share of all weights that become 0.
        block_columns: columns that are chosen from together; each block loses the same share.

    Returns:
        [O, I], of which round(sparsity * O * I) are 0.
    """
    weight, (num_rows, num_columns) = weight.clone(), weight.shape
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)  # [I, I] row j: of the inverse over the columns j, j+1, ...
    num_zero = 0
    for start in range(0, num_columns, block_columns):
        stop = min(start + block_columns, num_columns)
        until_here = round(sparsity * num_rows * stop)
        block, own = weight[:, start:stop], factor[start:stop, start:stop]  # a view
        zero = _least(block / own.diagonal(), until_here - num_zero)
        num_zero = until_here
        errors = torch.zeros_like(block)
        for column in range(stop - start):
            errors[:, column] = block[:, column] * zero[:, column] / own[column, column]
            block[:, column:] -= errors[:, column, None] * own[column, column:]
        block[zero] = 0.0  # what rounding has left
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return weight


def _block_columns(hessian: Tensor) -> int:
    return min(MAX_BLOCK_COLUMNS, math.ceil(len(hessian) / MIN_BLOCKS))


def _least(salience: Tensor, count: int) -> Tensor:
    """[O, B] -> bool, True at the `count` entries of the least size."""
    chosen = torch.zeros_like(salience, dtype=torch.bool)
    chosen.view(-1)[salience.abs().flatten().topk(count, largest=False).indices] = True
    return chosen


def _energy(weight: Tensor, gram: Tensor) -> Tensor:
    """||W X||^2 of W [O, I] and X X^T [I, I]."""
    return ((weight @ gram) * weight).sum()


def _grams(linear: Mapping[str, nn.Linear], decoder: Decoder, flights: Sequence[Flight]) -> dict[str, Tensor]:
    """X X^T [I, I] float64 of what each linear layer reads when rows pass their next layer, which holds them."""
    grams: dict[str, Tensor] = {}

    def adding_to(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            tokens = inputs[0].flatten(0, -2).float()  # [T, I]
            gram = (tokens.T @ tokens).double()
            grams[name] = grams[name] + gram if name in grams else gram

        return add

    hooks = [module.register_forward_pre_hook(adding_to(name)) for name, module in linear.items()]
    try:
        for flight in flights:
            decoder.advance(flight, flight.depth + 1)
    finally:
        for hook in hooks:
            hook.remove()
    return grams


def _linear_layers(layer: nn.Module, modules: Sequence[str]) -> dict[str, nn.Linear]:
    """Those of a transformer layer with one of the last names."""
    linear = {name: part for name, part in layer.named_modules() if isinstance(part, nn.Linear)}
    last_names = {name: name.rpartition(".")[2] for name in linear}
    if unknown := sorted(set(modules) - set(last_names.values())):
        raise ModelError(
            f"{unknown[0]} is to be pruned, but the linear layers of this LLM are "
            f"{', '.join(sorted(set(last_names.values())))}: name some of them"
        )
    return {name: part for name, part in linear.items() if last_names[name] in modules}
