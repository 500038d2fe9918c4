"""How much there is to do: prompts, pairs and tokens, of the workspace where it has them, otherwise assumed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from optirag_core.artifacts import Workspace
from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.data.splits import requests_for
from optirag_core.engine.loading import load_tokenizer
from optirag_core.errors import ArtifactError, StorageError
from optirag_core.inference.opening import open_artifacts
from optirag_core.inference.parts import open_assembler
from optirag_core.inference.requests import test_requests
from optirag_core.training.exit_features import labelled_requests
from optirag_core.training.packing import Sample
from optirag_core.training.pretrained import is_here, pretrained_place
from optirag_core.training.samples import labelled_samples

SAMPLE_USERS = 100
"""Users whose prompts are built to count tokens."""
PREFIX_TOKENS, PREFIX_ENTRIES = 1063, 75
"""BookCrossing's prompts with Llama's tokenizer, 4 similar users, at most 15 entries of each of the 5: measured."""
SUFFIX_TOKENS = 36
"""Of a candidate there: measured."""
CANDIDATES = 2.8
"""Answers of a training prompt there: measured."""
ASSUMED_TOKENS = (
    f"tokens: BookCrossing's with Llama's tokenizer, {PREFIX_TOKENS:,} of a prefix that shows up to {PREFIX_ENTRIES} "
    f"entries, in proportion to them, {SUFFIX_TOKENS} of a candidate, {CANDIDATES} candidates of a training prompt"
)


@dataclass(frozen=True)
class Counts:
    """Of one run."""

    prompts: int  # that the LLM is tuned on
    candidates: float  # answers of one of them
    labelled_prompts: int  # that exit features are computed of
    labelled_pairs: int
    policy_prompts: int  # those of the policy's users
    test_prompts: int  # those of the test users
    head_answers: int  # that the heads learn from
    prefix_tokens: float
    cold_prefix_tokens: float  # without similar users
    suffix_tokens: float
    ratings: float  # shown in a prompt
    sources: tuple[str, ...]  # where the numbers are from

    @property
    def row_tokens(self) -> float:
        """Of a training prompt with its answers."""
        return self.prefix_tokens + self.candidates * self.suffix_tokens


def count(settings: Settings) -> Counts:
    """Look into the workspace, with one try where it is a bucket."""
    once = settings.storage.model_copy(update={"max_attempts": 1, "connect_timeout_s": 2.0})
    settings = settings.model_copy(update={"storage": once})
    assumed = assumed_counts(settings)
    try:
        if not Workspace(settings.workspace, settings.storage).has("dataset"):
            said = f"{settings.workspace} has no data set: numbers of prompts are assumed"
            return _said(assumed, said, ASSUMED_TOKENS)
        dataset = Dataset.load(open_artifacts(settings, "dataset")["dataset"].path)
        return _measured_tokens(settings, dataset, _of_dataset(settings, dataset, assumed))
    except (ArtifactError, StorageError) as error:
        return _said(assumed, f"the workspace does not help: {error}", ASSUMED_TOKENS)


def assumed_counts(settings: Settings) -> Counts:
    """Without a look at the workspace."""
    prompt, split, plan = settings.prompt, settings.dataset.split, settings.plan
    own, similar = prompt.max_history, prompt.num_similar_users * prompt.max_similar_history
    prompts = _few(settings, plan.prompts)
    per_share = plan.prompts / (1.0 - split.heads_share - split.policy_share)
    most = settings.exit_features.max_users or plan.prompts
    heads, policy = (int(min(per_share * share, most)) for share in (split.heads_share, split.policy_share))
    labelled = 2 * heads + policy + settings.exit_features.test_users
    return Counts(
        prompts=prompts, candidates=CANDIDATES, labelled_prompts=labelled, labelled_pairs=int(labelled * CANDIDATES),
        policy_prompts=policy, test_prompts=settings.exit_features.test_users,
        head_answers=int(heads * CANDIDATES), prefix_tokens=PREFIX_TOKENS * (own + similar) / PREFIX_ENTRIES,
        cold_prefix_tokens=PREFIX_TOKENS * own / PREFIX_ENTRIES, suffix_tokens=SUFFIX_TOKENS, ratings=own + similar,
        sources=(),
    )  # fmt: skip


def _of_dataset(settings: Settings, dataset: Dataset, counts: Counts) -> Counts:
    tuned = requests_for(dataset.of_role("llm"), "tune")
    test = test_requests(dataset, settings.exit_features.test_users, settings.seed)
    labelled = labelled_requests(dataset, test, settings.exit_features.max_users)
    heads = labelled.filter((pc.field("purpose") == "heads") & (pc.field("split") == "tune"))
    counted = replace(
        counts, prompts=_few(settings, len(tuned)), candidates=_pairs(tuned) / max(1, len(tuned)),
        labelled_prompts=len(labelled), labelled_pairs=_pairs(labelled), head_answers=_pairs(heads),
        policy_prompts=len(labelled.filter(pc.field("purpose") == "policy")), test_prompts=len(test),
    )  # fmt: skip
    return _said(counted, f"prompts and pairs: counted in the data set of {settings.workspace}")


def _measured_tokens(settings: Settings, dataset: Dataset, counts: Counts) -> Counts:
    """Tokens of real prompts, where all that builds them is there."""
    workspace = Workspace(settings.workspace, settings.storage)
    built = all(map(workspace.has, ("evidence", "retriever", "index")))
    tokenizer = _tokenizer(settings, workspace) if built else None
    if tokenizer is None:
        return _said(counts, ASSUMED_TOKENS)
    artifacts = open_artifacts(settings, "dataset", "evidence", "retriever", "index")
    assembler, _ = open_assembler(settings, artifacts, tokenizer)
    mine = dataset.of_role("llm")
    warm, cold = (
        labelled_samples(assembler, mine, "tune", similar=similar, max_users=SAMPLE_USERS) for similar in (True, False)
    )
    if not warm or not cold:
        return _said(counts, ASSUMED_TOKENS)
    measured = replace(
        counts, prefix_tokens=_prefix(warm), cold_prefix_tokens=_prefix(cold),
        suffix_tokens=fmean(len(suffix) for sample in warm for suffix in sample.group.suffixes),
        ratings=fmean(len(sample.rating_positions) for sample in warm),
    )  # fmt: skip
    return _said(measured, f"tokens: means of {len(warm)} of its training prompts")


def _tokenizer(settings: Settings, workspace: Workspace) -> PreTrainedTokenizerBase | None:
    """The LLM's, where that is on this machine, or is the small one of the workspace."""
    if settings.llm.init == "scratch":
        return load_tokenizer(workspace.open("llm").path) if workspace.has("llm") else None
    path = settings.llm.pretrained.place
    return load_tokenizer(pretrained_place(path)) if is_here(path) else None


def _few(settings: Settings, prompts: int) -> int:
    """Of a pretrained LLM's prompts, its shots."""
    shots = settings.llm.pretrained.shots if settings.llm.init == "pretrained" else None
    return min(prompts, shots or prompts)


def _prefix(samples: Sequence[Sample]) -> float:
    return fmean(len(sample.group.prefix) for sample in samples)


def _pairs(requests: pa.Table) -> int:
    return pc.sum(pc.list_value_length(requests["item_ids"])).as_py() or 0


def _said(counts: Counts, *sources: str) -> Counts:
    return replace(counts, sources=(*counts.sources, *sources))
