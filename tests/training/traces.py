"""Traces of imagined LLMs: what every head says of every pair is drawn, so that the truth about it is known."""

import numpy as np
import torch
from torch import Tensor

from optirag_core.engine.cost import ModelShape
from optirag_core.engine.trace import Trace

SHAPE = ModelShape(num_layers=8, width=64, mlp_width=128, query_width=64, key_width=64)
LAYERS = (3, 5, 7)
WINDOW = 3


def imagined_trace(
    num_users: int, *, pairs: int = 1, noise: float = 0.0, evidence_noise: float | None = None, seed: int = 0
) -> tuple[Trace, np.ndarray, list[str]]:
    """A trace, the labels [R] and the users [R].

    Full depth knows the true p(liked); a head at layer l is off by `noise` times the share of layers that are missing.

    Args:
        pairs: of each user.
        evidence_noise: of the head at depth 0; None for heads that read no evidence.
    """
    generator = torch.Generator().manual_seed(seed)
    num_pairs = num_users * pairs
    truth = 0.4 + torch.randn(num_pairs, generator=generator)  # [R]
    labels = (torch.rand(num_pairs, generator=generator) < truth.sigmoid()).long().numpy()

    def off_by(scale: float) -> Tensor:
        return truth + scale * torch.randn(num_pairs, generator=generator)

    missing = [[1 - (layer - back) / SHAPE.num_layers for back in range(WINDOW, -1, -1)] for layer in LAYERS]
    windows = torch.stack([torch.stack([off_by(noise * each) for each in row], dim=1) for row in missing], dim=1)
    trace = Trace(
        shape=SHAPE,
        layers=LAYERS,
        frozen_prefix_after=None,
        sizes=(pairs,) * num_users,
        parts=torch.arange(num_pairs) // pairs,
        prefix_tokens=torch.full((num_pairs,), 300),
        suffix_tokens=torch.full((num_pairs,), 20),
        logits=_both(windows),  # [R, L, m+1, 2]
        final_logits=_both(truth),
        evidence_logits=None if evidence_noise is None else _both(off_by(evidence_noise)),
    )
    return trace, labels, [f"user {pair // pairs}" for pair in range(num_pairs)]


def _both(differences: Tensor) -> Tensor:
    """[...] logits of p(yes) -> [..., 2], yes first."""
    return torch.stack([differences, torch.zeros_like(differences)], dim=-1)
