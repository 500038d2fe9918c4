"""What the tasks of a study do, each on artifacts that it has opened."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from optirag_core.artifacts import Workspace
from optirag_core.config.settings import Settings
from optirag_core.evaluation.reproduction.measurement import Measurement
from optirag_core.evaluation.reproduction.measuring import frozen_prefix, papers_form, whole
from optirag_core.evaluation.reproduction.pruned import pruned_form
from optirag_core.evaluation.reproduction.rates import retrieval, whole_path
from optirag_core.evaluation.reproduction.variants import changed
from optirag_core.inference.opening import Artifacts
from optirag_core.inference.variants import test_features
from optirag_core.training.exit_features import read_features
from optirag_core.training.pretrained import pretrained_place


def whole_run(settings: Settings, artifacts: Artifacts, device: str) -> Measurement:
    """The run itself."""
    return whole(settings, artifacts)


def own_prompts(settings: Settings, artifacts: Artifacts, device: str) -> Measurement:
    """A variant with an LLM that was tuned on its prompts."""
    return papers_form(settings, artifacts, read_features(artifacts["exit_features"].path, "test"))


def other_prompts(
    settings: Settings, artifacts: Artifacts, device: str, *, prompt: Mapping[str, Any] | None = None,
    workspace: str | None = None, retriever: str | None = None, index: str | None = None,
) -> Measurement:  # fmt: skip
    """Other prompts for the run's own LLM.

    Args:
        prompt: values of the section `prompt`.
        workspace, retriever, index: where another retriever lies, and versions.
    """
    found: dict[str, Any] = {}
    if workspace:
        place = Workspace(workspace, settings.storage)
        found = {"retriever": place.open("retriever", retriever), "index": place.open("index", index)}
    read = test_features(settings, artifacts, prompt=prompt, device=device, **found)
    measurement = papers_form(settings, artifacts, read.features)
    return replace(measurement, facts={"pairs_per_s": read.tally.pairs_per_s})


def rates(settings: Settings, artifacts: Artifacts, device: str, *, other: str, opening: Any) -> Measurement:
    """Pairs per second over the whole path, of the run's systems and of another one.

    Args:
        other: its name.
        opening: what it is opened from; None: the run's own LLM reads prompts without similar users.
    """
    nobody = changed(settings, {"prompt": {"num_similar_users": 0}})
    return whole_path(settings, artifacts, {other: opening.open() if opening else (nobody, artifacts)}, device=device)


def frozen(settings: Settings, artifacts: Artifacts, device: str) -> Measurement:
    """One more pass, whose prefix stands still above the first exit layer."""
    first = settings.exit_heads.layers[0]
    features = test_features(settings, artifacts, frozen_prefix_after=first, device=device).features
    return frozen_prefix(settings, artifacts, features)


def pruned(settings: Settings, artifacts: Artifacts, device: str, *, sparsity: float, num_users: int) -> Measurement:
    """Table 9's SparseGPT."""
    return pruned_form(settings, artifacts, sparsity=sparsity, num_users=num_users, device=device)


def retrieval_times(settings: Settings, artifacts: Artifacts, device: str) -> Measurement:
    """Figure 3."""
    encoder = settings.reproduce.text_encoder
    place = pretrained_place(encoder) if encoder else artifacts["llm"].path
    return Measurement.of_facts(retrieval(settings, artifacts, place, device=device))
