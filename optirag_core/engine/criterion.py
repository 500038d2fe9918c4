"""When to stop: algorithm 2 of arXiv:2501.02173v2, for many pairs at once.

Shapes: R pairs, m window. The algorithm's text settles what the paper leaves open: section 5.1 tracks the probability
and lets its window run forward in depth, algorithm 2 tracks the ratio and looks back; both values are offered, the
window looks back.
"""

from typing import Literal

from torch import Tensor

Criterion = Literal["ratio", "probability", "none"]


def window_values(logits: Tensor, criterion: Criterion) -> Tensor:
    """The tracked value of each hidden state in the window.

    Args:
        logits: [R, m+1, 2] of Head_l on h^(l-m) ... h^(l), yes first.
        criterion: `ratio` v = p_yes / p_no (algorithm 2, line 7); `probability` v = p_yes (section 5.1).

    Returns:
        [R, m+1] values.
    """
    difference = logits[..., 0] - logits[..., 1]  # [R, m+1]
    return difference.sigmoid() if criterion == "probability" else difference.exp()


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
    return (discrepancy(values) < threshold) & (criterion != "none")
