"""When to stop: algorithm 2 of arXiv:2501.02173v2 and the field's other criteria, for many pairs at once.

Shapes: R pairs, m window. The algorithm's text settles what the paper leaves open: section 5.1 tracks the probability
and lets its window run forward in depth, algorithm 2 tracks the ratio and looks back; both values are offered, the
window looks back.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Criterion = Literal["ratio", "probability", "confidence", "entropy", "patience", "none"]


def window_values(logits: Tensor, criterion: Criterion) -> Tensor:
    """The tracked value of each hidden state in the window.

    Args:
        logits: [R, m+1, 2] of Head_l on h^(l-m) ... h^(l), yes first.
        criterion: `ratio` v = p_yes / p_no (algorithm 2, line 7); the others v = p_yes (section 5.1).

    Returns:
        [R, m+1] values.
    """
    difference = logits[..., 0] - logits[..., 1]  # [R, m+1]
    return difference.exp() if criterion in ("ratio", "none") else difference.sigmoid()


def statistic(values: Tensor, criterion: Criterion) -> Tensor:
    """What a criterion compares with its threshold.

    `ratio`, `probability`: the discrepancy. `confidence`: max(p, 1 - p) on h^(l). `entropy`: of the answer on h^(l), in
    nats (BranchyNet, arXiv:1709.01686). `patience`: how many earlier states of the window give another
    answer than h^(l) (PABEE, arXiv:2006.04152, within one window instead of over the exits).

    Args:
        values: [R, m+1].

    Returns:
        [R].
    """
    last = values[:, -1]
    if criterion == "confidence":
        return torch.maximum(last, 1 - last)
    if criterion == "entropy":
        return torch.special.entr(last) + torch.special.entr(1 - last)
    if criterion == "patience":
        answers = values > 0.5
        others = (answers[:, :-1] != answers[:, -1:]).sum(dim=-1).to(values.dtype)
        return others.masked_fill(values.isnan().any(dim=-1), math.nan)  # no number is no answer
    return discrepancy(values)


def discrepancy(values: Tensor) -> Tensor:
    """|D - mean|: the last delta against the mean of the m - 1 earlier ones (algorithm 2, lines 10-13).

    Args:
        values: [R, m+1], m >= 2.

    Returns:
        [R].
    """
    deltas = values.diff(dim=-1).abs()  # [R, m]
    return (deltas[:, -1] - deltas[:, :-1].mean(dim=-1)).abs()


def should_exit(values: Tensor, threshold: float, criterion: Criterion) -> Tensor:
    """[R, m+1] values -> [R] bool: the prediction is stable (algorithm 2, line 13). Never for criterion `none`."""
    found = statistic(values, criterion)
    if criterion == "confidence":
        return found >= threshold
    if criterion == "entropy":
        return found <= threshold
    if criterion == "patience":  # over the whole window; it has no threshold
        return found == 0
    return (found < threshold) & (criterion != "none")
