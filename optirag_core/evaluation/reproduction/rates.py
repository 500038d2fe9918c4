"""What is timed live: table 4's systems from user ids to scores, table 9's LLMs, and figure 3's retrievers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from optirag_core.config.data import IndexSettings
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.loading import load_llm
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.evaluation.reproduction.answering import MULTI_HEAD, RETRIEVER_ONLY, SINGLE_HEAD, papers_policy
from optirag_core.evaluation.reproduction.measurement import Measurement
from optirag_core.evaluation.reproduction.timing import System, time_paths, time_retrieval
from optirag_core.evaluation.reproduction.variant_heads import variant_heads
from optirag_core.inference.opening import Artifacts
from optirag_core.inference.parts import open_assembler
from optirag_core.inference.requests import test_requests
from optirag_core.prompting.node_texts import NodeTexts
from optirag_core.retrieval.index import UserIndex
from optirag_core.retrieval.text import TextEncoder
from optirag_core.retrieval.vectors import load_vectors

GCN, LLM = "GCN", "LLM"


def whole_path(
    settings: Settings, artifacts: Artifacts, others: Mapping[str, tuple[Settings, Artifacts]], *, device: str
) -> Measurement:
    """Pairs per second of the paper's form: full depth and both exits, and what is to be compared with it.

    Args:
        artifacts: the run's.
        others: name -> settings and artifacts of further systems: full depth, and multi-head exit too, where their
            heads can be trained (`exit_features` is among the artifacts).
    """
    policies = {RETRIEVER_ONLY: False, SINGLE_HEAD: True, MULTI_HEAD: True}
    paths = dict(_paths(settings, artifacts, "", policies, device))
    for name, (changed, opened) in others.items():
        paths |= dict(_paths(changed, opened, f"{name}: ", {RETRIEVER_ONLY: False, MULTI_HEAD: True}, device))
    reproduce = settings.reproduce
    asked = min(reproduce.timed_users, settings.exit_features.test_users)
    requests = test_requests(Dataset.load(artifacts["dataset"].path), asked, settings.seed)
    return time_paths(paths, requests, rounds=reproduce.timed_rounds)


def _paths(
    settings: Settings, artifacts: Artifacts, prefix: str, kinds: Mapping[str, bool], device: str
) -> list[tuple[str, System]]:
    model, tokenizer = load_llm(artifacts["llm"].path, dtype=settings.engine.dtype)
    assembler, _ = open_assembler(settings, artifacts, tokenizer)
    heads = {name: variant_heads(settings, artifacts, model, single_head=name == SINGLE_HEAD) for name in kinds}
    model.to(device)
    return [
        (f"{prefix}{name}", System(assembler, _scorer(settings, model, heads[name].to(device), exits)))
        for name, exits in kinds.items()
    ]


def _scorer(settings: Settings, model: PreTrainedModel, heads: ExitHeads, exits: bool) -> Scorer:
    policy = papers_policy() if exits else ExitPolicy("none", settings.exit_policy.window, 0.0)
    return Scorer(model, heads, policy, layers=heads.layers, max_tokens_in_flight=settings.engine.max_tokens_in_flight)


def retrieval(settings: Settings, artifacts: Artifacts, encoder_place: Path, *, device: str) -> dict[str, float]:
    """Figure 3: milliseconds per user to find `prompt.num_similar_users` by the GCN and by reading histories.

    The GCN's vectors are looked up; a history is read by the encoder. Both then search exactly, the text's over random
    vectors of its width, which take as long as any.
    """
    texts = NodeTexts.open(settings, artifacts["dataset"].path)
    encoder = TextEncoder.load(settings.retriever.text, encoder_place, device=torch.device(device))
    user_ids, embeddings = load_vectors(artifacts["retriever"].path, "user")
    exact = IndexSettings()
    by_graph = UserIndex.build(user_ids, embeddings, exact)
    by_text = UserIndex.build(user_ids, F.normalize(torch.randn(len(user_ids), encoder.width), dim=-1), exact)
    asked = _asked(settings, artifacts, user_ids)
    k = settings.prompt.num_similar_users or 4

    def search(users: Sequence[str]) -> None:
        by_graph.similar_batch(users, k)

    def read_and_search(users: Sequence[str]) -> None:
        encoder.encode(texts.of_users(users))
        by_text.similar_batch(users, k)

    return time_retrieval({GCN: search, LLM: read_and_search}, asked, rounds=settings.reproduce.timed_rounds)


def _asked(settings: Settings, artifacts: Artifacts, user_ids: pa.Array) -> list[str]:
    """Test users that the retriever knows."""
    requests = test_requests(Dataset.load(artifacts["dataset"].path), settings.exit_features.test_users, settings.seed)
    known = set(user_ids.to_pylist())
    return [user for user in requests["user_id"].to_pylist() if user in known][: settings.reproduce.timed_users]
