"""Table 9's SparseGPT: the run's LLM with half of its attention weights gone, at full depth on the same prompts."""

import pyarrow.compute as pc

from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import requests_for
from optirag_core.data.spread import spread
from optirag_core.engine.groups import UserGroup
from optirag_core.engine.heads import lm_answer_head
from optirag_core.engine.loading import load_answer_ids, load_llm, load_tokenizer
from optirag_core.evaluation.reproduction.answering import RETRIEVER_ONLY, at_layer, measured
from optirag_core.evaluation.reproduction.measurement import Measurement
from optirag_core.inference.opening import Artifacts
from optirag_core.inference.parts import open_assembler
from optirag_core.inference.prompts import assembled_prompts, groups_of
from optirag_core.inference.variants import test_features
from optirag_core.training.sparsegpt import prune


def pruned_form(
    settings: Settings, artifacts: Artifacts, *, sparsity: float, num_users: int, device: str
) -> Measurement:
    """Prune, and read the test prompts.

    Args:
        sparsity: share of each layer's weights that go.
        num_users: whose prompts it is calibrated on; the LLM was tuned on theirs.
    """
    model, _ = load_llm(artifacts["llm"].path)
    lost = prune(model.to(device), _calibration(settings, artifacts, num_users), sparsity=sparsity)
    features = test_features(settings, artifacts, model=model, device=device).features
    head = lm_answer_head(model.cpu(), load_answer_ids(artifacts["llm"].path))
    answers = {RETRIEVER_ONLY: at_layer(features, head, model.config.num_hidden_layers, False)}
    return measured(features, answers, worst_layer_error=max(lost.values()))


def _calibration(settings: Settings, artifacts: Artifacts, num_users: int) -> list[UserGroup]:
    """Prompts of users whose answers the LLM has learned."""
    dataset = Dataset.load(artifacts["dataset"].path)
    requests = spread(requests_for(dataset.of_role("llm"), "tune"), num_users)
    assembler, _ = open_assembler(settings, artifacts, load_tokenizer(artifacts["llm"].path))
    prompts = assembled_prompts(assembler, requests)
    return groups_of(prompts.filter(pc.greater(pc.list_value_length(prompts["suffixes"]), 0)))
