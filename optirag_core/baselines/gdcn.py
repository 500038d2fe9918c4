"""GDCN, the gated deep cross network (arXiv:2311.04635): a cross layer whose crosses pass a gate.

Shapes: B pairs, W width of all vectors of a pair together.
"""

from torch import Tensor, nn

from optirag_core.baselines.dcnv2 import Dcnv2


class GatedCrossLayer(nn.Module):
    """c_(l+1) = c_0 * (W_c c_l + b) * sigmoid(W_g c_l) + c_l.

    Source: arXiv:2311.04635, the gated cross layer.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cross = nn.Linear(width, width)
        self.gate = nn.Linear(width, width, bias=False)

    def forward(self, first: Tensor, crossed: Tensor) -> Tensor:
        """c_0 and c_l [B, W] -> c_(l+1) [B, W]."""
        return first * self.cross(crossed) * self.gate(crossed).sigmoid() + crossed


class Gdcn(Dcnv2):
    """The paper's GDCN-P, crosses and MLP in parallel: beside DCNv2 the gate is the only difference."""

    cross_layer = GatedCrossLayer
