"""The trained LLM, heads and policy on other prompts than those they were trained with, to compare prompts.

`open_artifacts` refuses such a mixture, as scores must be those of one lineage. Here it is made on purpose: the answers
to the test split's requests with more or fewer similar users, or with those that another retriever finds, cost one pass
of the LLM, and no training. Nothing of it is stored.

Shapes: R pairs.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedModel

from optirag_core.artifacts import Artifact, scratch_folder
from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from
from optirag_core.data.dataset import Dataset
from optirag_core.engine.heads import ExitHeads, p_yes
from optirag_core.engine.loading import load_llm, load_tokenizer
from optirag_core.engine.policy import Choice, ExitPolicy
from optirag_core.engine.scorer import Scorer
from optirag_core.engine.states import window_layers
from optirag_core.engine.trace import Trace
from optirag_core.errors import DataError
from optirag_core.inference.opening import Artifacts
from optirag_core.inference.parts import check_prompts_fit, open_assembler, untrained_heads
from optirag_core.inference.requests import test_requests
from optirag_core.training.exit_features import (
    ExitFeatures,
    features_of,
    labelled_prompts,
    labelled_requests,
    read_features,
    save_features,
)

REQUESTS_PER_CALL = 64
"""As in the job exit_features: of about 1,000 tokens each, a minute and a half of two CPU cores."""


@dataclass
class Tally:
    """What a pass took, and what its prompts show; without the opening of artifacts and of the LLM."""

    num_requests: int = 0
    num_pairs: int = 0
    prompt_s: float = 0.0  # histories, similar users, tokens
    pass_s: float = 0.0  # the LLM to its full depth
    num_similar_users: int = 0  # shown, of all prompts
    dropped_entries: int = 0  # history entries left out of prompts that were too long
    dropped_users: int = 0  # similar users, likewise

    @property
    def pairs_per_s(self) -> float:
        """Over the whole path, one after the other."""
        return self.num_pairs / (self.prompt_s + self.pass_s)


@dataclass(frozen=True)
class Variant:
    """The test split's pairs as the LLM sees them behind some prompts."""

    features: ExitFeatures
    tally: Tally


@dataclass(frozen=True)
class Replayed:
    """What a run with a policy gives for each pair [R], and its useful FLOPs as a share of full depth's."""

    scores: np.ndarray  # p(yes)
    exit_layers: np.ndarray  # 1-based; 0 is the evidence alone, the last full depth
    flops_share: float


def test_features(
    settings: Settings,
    artifacts: Artifacts,
    *,
    prompt: Mapping[str, Any] | None = None,
    retriever: Artifact | None = None,
    index: Artifact | None = None,
    model: PreTrainedModel | None = None,
    frozen_prefix_after: int | None = None,
    device: str = "cpu",
    on_request: Callable[[int], None] = lambda _: None,
) -> Variant:
    """One full-depth pass over the test split's requests of `exit_features`, with what is given changed.

    Args:
        artifacts: dataset, evidence, retriever, index and llm, as they were trained with each other.
        prompt: settings of the section `prompt` to change, e.g. {"num_similar_users": 8}.
        retriever: another one, of the same data set, with its index.
        index: another one, of the retriever in use.
        model: the LLM in another form, e.g. pruned, with the same tokenizer.
        frozen_prefix_after: as in the policy that is to be replayed.
        on_request: is told of the requests that are answered since it was told last.

    Raises:
        ConfigError: `prompt` has an unknown or invalid setting, or prompts may get longer than the LLM reads.
        ArtifactMismatch: the retriever is of another data set, or the index of another retriever.
        DataError: the test split has no request.
    """
    settings = settings_from({**settings.model_dump(), "prompt": {**settings.prompt.model_dump(), **(prompt or {})}})
    mixed = _mixed(artifacts, retriever, index)
    check_prompts_fit(settings, mixed)
    requests = _requests(settings, mixed)
    scorer, tally = _recorder(settings, mixed, model, frozen_prefix_after, device), Tally()
    tables = _tables(settings, mixed, scorer, requests, tally, on_request)
    with scratch_folder() as files:
        tally.num_pairs = save_features(tables, scorer.shape, files)
        features = read_features(files, "test", frozen_prefix_after=frozen_prefix_after)
    return Variant(features, tally)


def replayed(features: ExitFeatures, heads: ExitHeads, policy: ExitPolicy, layers: tuple[int, ...]) -> Replayed:
    """Follow an exit policy on recorded states.

    Args:
        layers: the exit layers in use.

    Raises:
        ConfigError: the states cannot tell, as `Trace.outcome`.
    """
    return replays(features, heads, [(policy, layers)])[0]


def replays(features: ExitFeatures, heads: ExitHeads, choices: list[Choice]) -> list[Replayed]:
    """`replayed` for many policies, with one look of the heads at the states."""
    evidence = features.evidence if heads.num_features else None
    widest = max(policy.window for policy, _ in choices)
    trace = Trace.of_states(features.states, heads, evidence, window=widest)
    deep = ExitPolicy("none", widest, 0.0, frozen_prefix_after=trace.frozen_prefix_after)
    whole = trace.outcome(deep).cost.flops
    outcomes = [trace.outcome(policy, layers) for policy, layers in choices]
    return [
        Replayed(p_yes(outcome.logits).numpy(), outcome.exit_layers.numpy(), outcome.cost.flops / whole)
        for outcome in outcomes
    ]


def _mixed(artifacts: Artifacts, retriever: Artifact | None, index: Artifact | None) -> Artifacts:
    """The artifacts with another retriever or index; the LLM, heads and policy stay, though made from the first."""
    retriever, index = retriever or artifacts["retriever"], index or artifacts["index"]
    retriever.require_parent(artifacts["dataset"])
    index.require_parent(retriever)
    return Artifacts(artifacts.workspace, {**artifacts.by_kind, "retriever": retriever, "index": index})


def _requests(settings: Settings, artifacts: Artifacts) -> pa.Table:
    """`LABELLED_REQUESTS` of the test split that the job exit_features draws."""
    dataset = Dataset.load(artifacts["dataset"].path)
    asked = test_requests(dataset, settings.exit_features.test_users, settings.seed)
    requests = labelled_requests(dataset, asked, settings.exit_features.max_users)
    requests = requests.filter(pc.equal(requests["purpose"], "test"))
    if not len(requests):
        raise DataError("the test split has no request: raise dataset.split.test_share or lower dataset.min_history")
    return requests


def _recorder(
    settings: Settings, artifacts: Artifacts, model: PreTrainedModel | None, frozen: int | None, device: str
) -> Scorer:
    """A scorer for hidden states; its heads are not asked."""
    engine = settings.engine
    if model is None:
        model, _ = load_llm(artifacts["llm"].path, dtype=engine.dtype)
    model.to(device)
    full_depth = ExitPolicy("none", settings.exit_policy.window, 0.0, frozen_prefix_after=frozen)
    return Scorer(
        model, untrained_heads(settings, artifacts, model), full_depth,
        max_tokens_in_flight=engine.max_tokens_in_flight, deterministic=engine.deterministic,
        compile_layers=engine.compile_layers,
    )  # fmt: skip


def _tables(
    settings: Settings, artifacts: Artifacts, scorer: Scorer, requests: pa.Table, tally: Tally,
    on_request: Callable[[int], None],
) -> Iterator[tuple[int, pa.Table]]:  # fmt: skip
    """Features of some requests at a time, numbered."""
    assembler, _ = open_assembler(settings, artifacts, load_tokenizer(artifacts["llm"].path))
    layers = window_layers(settings.exit_heads.layers, settings.exit_policy.window, scorer.shape.num_layers)
    for number, start in enumerate(range(0, len(requests), REQUESTS_PER_CALL)):
        began = time.perf_counter()
        prompts = labelled_prompts(assembler, requests.slice(start, REQUESTS_PER_CALL))
        built = time.perf_counter()
        table = features_of(scorer, prompts, layers)
        tally.pass_s += time.perf_counter() - built
        tally.prompt_s += built - began
        tally.num_requests += len(prompts)
        for name in ("num_similar_users", "dropped_entries", "dropped_users"):
            setattr(tally, name, getattr(tally, name) + pc.sum(prompts[name]).as_py())
        yield number, table
        on_request(len(prompts))
