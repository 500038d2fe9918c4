"""Exit heads of other forms than a run's own, trained anew on its hidden states: minutes at most, and no artifact."""

from dataclasses import replace

import torch
from transformers import PreTrainedModel

from optirag_core.config.settings import Settings
from optirag_core.engine.heads import ExitHeads
from optirag_core.inference.opening import Artifacts
from optirag_core.inference.parts import untrained_heads
from optirag_core.training.exit_features import ExitFeatures, read_features
from optirag_core.training.exit_heads import HeadSamples, train_exit_heads


def variant_heads(
    settings: Settings, artifacts: Artifacts, model: PreTrainedModel, *,
    evidence: bool = False, single_head: bool = False, decay: float | None = None, shuffled_labels: bool = False,
) -> ExitHeads:  # fmt: skip
    """Heads that learn as the run's own do, but for what is named.

    Args:
        artifacts: `evidence`, `llm` and `exit_features` are among them.
        model: the LLM.
        evidence: they read it; without it is the paper's form, where the LM's own head stays as it is.
        single_head: all layers have the deepest head.
        decay: beta of section 5.2; 0 is one learning rate for all.
        shuffled_labels: a control; the labels that they learn from are dealt out anew.
    """
    reading = settings.model_copy(
        update={"evidence": settings.evidence.model_copy(update={"heads": evidence})},
    )
    heads = untrained_heads(reading, artifacts, model)
    given = {"single_head": single_head, "decay": settings.exit_heads.decay if decay is None else decay}
    features = [read_features(artifacts["exit_features"].path, "heads", split) for split in ("tune", "validation")]
    if shuffled_labels:
        features = [_dealt(each, settings.seed) for each in features]
    samples, validation = (HeadSamples.of(each, heads) for each in features)
    training = settings.exit_heads.model_copy(update=given | {"loss": "answers"})
    train_exit_heads(heads, samples, training, seed=settings.seed, validation=validation)
    return heads


def _dealt(features: ExitFeatures, seed: int) -> ExitFeatures:
    order = torch.randperm(len(features.labels), generator=torch.Generator().manual_seed(seed))
    return replace(features, labels=features.labels[order])
