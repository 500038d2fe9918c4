"""The CTR models by the names that the paper's table 2 gives them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from optirag_core.baselines.batch import Vocabularies
from optirag_core.baselines.deepfm import DeepFm
from optirag_core.baselines.size import ModelSize

__all__ = ["MODELS", "ModelSize"]

# Each maps a `Batch` to logits of "liked" [B]; its weights come from torch's global generator.
MODELS: Mapping[str, Callable[[Vocabularies, ModelSize], nn.Module]] = MappingProxyType(
    {
        "DeepFM": DeepFm,
    }
)
