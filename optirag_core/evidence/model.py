"""What a logistic regression has made of evidence: standardised features, and p(yes) from the interactions alone.

Shape legend: `n` pairs, `F` features.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file, save_file

from optirag_core.evidence.evidence import Evidence

MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class EvidenceModel:
    """Weights of standardised features."""

    mean: np.ndarray  # [F] float32
    scale: np.ndarray  # [F] float32, above 0
    weights: np.ndarray  # [F] float32
    bias: float

    def standardise(self, features: np.ndarray) -> np.ndarray:
        """[n, F] features -> [n, F] float32 of mean 0 and scale 1 over the fitted rows."""
        return ((features - self.mean) / self.scale).astype(np.float32)

    def logit(self, standardised: np.ndarray) -> np.ndarray:
        """[n, F] of `standardise` -> [n] log-odds of yes."""
        return standardised @ self.weights + self.bias

    def score(self, standardised: np.ndarray) -> np.ndarray:
        """[n, F] of `standardise` -> [n] float64 p(yes)."""
        return 1.0 / (1.0 + np.exp(-self.logit(standardised).astype(np.float64)))

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` into an existing local folder."""
        bias = np.array([self.bias], np.float64)
        save_file({"mean": self.mean, "scale": self.scale, "weights": self.weights, "bias": bias}, folder / MODEL_FILE)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read what `save` wrote; the artifact store has verified the file."""
        tensors = load_file(folder / MODEL_FILE)
        return cls(tensors["mean"], tensors["scale"], tensors["weights"], float(tensors["bias"][0]))


@dataclass(frozen=True)
class PairEvidence:
    """The evidence of pairs as the heads read it."""

    evidence: Evidence
    model: EvidenceModel

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Both from the folder of an artifact."""
        return cls(Evidence.open(folder), EvidenceModel.open(folder))

    def standardised(self, pairs: pa.Table) -> np.ndarray:
        """`PAIRS` [n] -> [n, F] float32, as `Evidence.features` and `EvidenceModel.standardise` say."""
        return self.model.standardise(self.evidence.features(pairs))
