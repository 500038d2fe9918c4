"""The CTR models by the names that the paper's table 2 gives them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from optirag_core.baselines.autoint import AutoInt
from optirag_core.baselines.batch import Vocabularies
from optirag_core.baselines.dcnv2 import Dcnv2
from optirag_core.baselines.deepfm import DeepFm
from optirag_core.baselines.din import Din
from optirag_core.baselines.eulernet import EulerNet
from optirag_core.baselines.gdcn import Gdcn
from optirag_core.baselines.gru4rec import Gru4Rec
from optirag_core.baselines.size import ModelSize
from optirag_core.baselines.wukong import WuKong

__all__ = ["MODELS", "ModelSize"]

# Each maps a `Batch` to logits of "liked" [B]; its weights come from torch's global generator.
MODELS: Mapping[str, Callable[[Vocabularies, ModelSize], nn.Module]] = MappingProxyType(
    {
        "DeepFM": DeepFm,
        "DIN": Din,
        "GRU4Rec": Gru4Rec,
        "AutoInt": AutoInt,
        "DCNv2": Dcnv2,
        "WuKong": WuKong,
        "GDCN": Gdcn,
        "EulerNet": EulerNet,
    }
)
