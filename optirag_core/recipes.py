"""What each artifact is made from: the settings that it depends on and no others, and its parents.

    dataset <- dataset, raw files, events        evidence <- evidence.attributes, dataset
    retriever <- retriever, dataset              index <- index, retriever, dataset
    retriever of text <- retriever.text, its encoder's files, the template, evidence.prompt, dataset
    llm <- llm, prompt, evidence.prompt, all above
    exit_features <- exit_features, exit_heads.layers, exit_policy.window, engine.dtype, prompt, all above
    exit_heads <- exit_heads, evidence.heads, prompt, all above
    exit_policy <- calibration, exit_policy.window, engine.dtype, all above
    scores <- exit_policy, engine, prompt, requests, all above but exit_features
    baselines <- baselines, prompt.max_history, requests.max_users, the profile that prompts show, evidence, dataset

Equal recipes make equal artifacts, so a recipe's version names the folder, and one that is there is not made again.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optirag_core import __version__
from optirag_core.artifacts import TRAININGS, Artifact, Workspace
from optirag_core.config.section import Section
from optirag_core.config.settings import Settings
from optirag_core.errors import ArtifactCorrupt
from optirag_core.manifest import digest_of
from optirag_core.prompting.template import PromptTemplate
from optirag_core.runs.identity import RunIdentity
from optirag_core.runs.plan import ShardPlan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """An artifact before it is made."""

    kind: str
    config: Mapping[str, Any]  # JSON values
    parents: Mapping[str, str]  # kind -> digest

    @property
    def version(self) -> str:
        """Name of the artifact: 12 hex digits."""
        return digest_of({"config": self.config, "parents": self.parents, "code": __version__})[:12]

    @property
    def training(self) -> str:
        """Where the checkpoints of its training lie; they go when it is made."""
        return f"{TRAININGS}/{self.kind}-{self.version}"

    def made(self, workspace: Workspace) -> Artifact | None:
        """The artifact, now the newest of its kind, where an earlier job has made it whole; else None."""
        if not workspace.has(self.kind, self.version):
            return None
        try:
            artifact = workspace.open(self.kind, self.version)
        except ArtifactCorrupt as error:
            log.warning("warning: %s", error)
            return None
        workspace.select(self.kind, self.version)
        workspace.remove(self.training)
        log.info("%s/%s is there already: nothing to do", self.kind, self.version)
        return artifact

    def save(self, workspace: Workspace, files: Path, metrics: Mapping[str, Any]) -> Artifact:
        """Publish the folder `files` as this artifact."""
        artifact = workspace.save(
            self.kind, self.version, files, config=self.config, parents=self.parents, metrics=metrics
        )
        workspace.remove(self.training)
        return artifact


def dataset_recipe(settings: Settings, raw_files: Mapping[str, str], events: Mapping[str, Any] | None = None) -> Recipe:
    """
    Args:
        raw_files: name -> sha256 of each file that the data set is read from, wherever they lie.
        events: what tells the events that it holds from others; None where it holds none.
    """
    dataset = _plain(settings.dataset, without={"path", "events"})
    config = {"dataset": dataset, "raw_files": raw_files, "seed": settings.seed}
    return Recipe("dataset", config if events is None else {**config, "events": events}, {})


def evidence_recipe(settings: Settings, parents: Mapping[str, str]) -> Recipe:
    config = {"evidence": _plain(settings.evidence, without={"heads", "prompt"})}
    return Recipe("evidence", config, parents)


def retriever_recipe(settings: Settings, parents: Mapping[str, str], weights: str | None = None) -> Recipe:
    """
    Args:
        weights: digest of the files of `retriever.text.encoder`, wherever they lie; None where nothing reads texts.
    """
    retriever = settings.retriever
    if retriever.method != "text":
        config = {"retriever": _plain(retriever, without={"text"}), "seed": settings.seed, "item_fold_in": True}
        return Recipe("retriever", config, parents)
    read = {"method": "text", "weights": weights, **_plain(retriever.text, without={"encoder"})}
    return Recipe("retriever", {"retriever": read, "words": _words(settings)}, parents)


def index_recipe(settings: Settings, parents: Mapping[str, str]) -> Recipe:
    config = {"index": _plain(settings.index, without={"min_recall", "gpu"}), "seed": settings.seed}
    return Recipe("index", config, parents)


def llm_recipe(settings: Settings, parents: Mapping[str, str], weights: str | None) -> Recipe:
    """
    Args:
        weights: digest of the pretrained LLM's files, wherever they lie; None for one from scratch.
    """
    llm = {"init": settings.llm.init, "weights": weights, **_plain(settings.llm.chosen, without={"path"})}
    config = {"llm": llm, "prompt": prompt_config(settings), "seed": settings.seed}
    return Recipe("llm", config, parents)


def exit_features_recipe(settings: Settings, parents: Mapping[str, str]) -> Recipe:
    config = {
        "exit_features": _plain(settings.exit_features),
        "layers": list(settings.exit_heads.layers),
        "window": settings.exit_policy.window,
        "dtype": settings.engine.dtype,
        "prompt": prompt_config(settings),
        "seed": settings.seed,
    }
    return Recipe("exit_features", config, parents)


def exit_heads_recipe(settings: Settings, parents: Mapping[str, str]) -> Recipe:
    config = {
        "exit_heads": _plain(settings.exit_heads),
        "evidence_heads": settings.evidence.heads,
        "prompt": prompt_config(settings),
        "seed": settings.seed,
    }
    return Recipe("exit_heads", config, parents)


def exit_policy_recipe(settings: Settings, parents: Mapping[str, str]) -> Recipe:
    config = {
        "calibration": _plain(settings.calibration),
        "window": settings.exit_policy.window,
        "dtype": settings.engine.dtype,
        "seed": settings.seed,
    }
    return Recipe("exit_policy", config, parents)


def baselines_recipe(
    settings: Settings, parents: Mapping[str, str], *, model: str, seed: int, profile: Collection[str]
) -> Recipe:
    """
    Args:
        model: one of `baselines.models`.
        seed: of this training.
        profile: columns of users that the prompt's template shows.
    """
    config = {
        "model": model,
        "baselines": _plain(settings.baselines, without={"models", "num_seeds"}),
        "profile": list(profile),
        "max_history": settings.prompt.max_history,
        "requests": {"max_users": settings.requests.max_users, "seed": settings.seed},
        "seed": seed,
    }
    return Recipe("baselines", config, parents)


def reports_recipe(settings: Settings, parents: Mapping[str, str], predictors: Collection[str]) -> Recipe:
    """
    Args:
        predictors: names of those that stand beside the model.
    """
    return Recipe("reports", {"seed": settings.seed, "predictors": sorted(predictors)}, parents)


def run_identity(
    settings: Settings, artifacts: Mapping[str, str], requests: Mapping[str, Any], plan: ShardPlan
) -> RunIdentity:
    """Everything that the scores of a run depend on.

    Args:
        artifacts: kind -> digest.
        requests: what `inference.requests` says of where they come from.
    """
    actors = settings.actors
    on_gpu = actors.num_gpus_per_scorer > 0
    return RunIdentity.of(
        {
            "code_version": __version__,
            "artifacts": artifacts,
            "prompt": prompt_config(settings),
            "exit_policy": _plain(settings.exit_policy),
            "engine": {
                **_plain(settings.engine), "on_gpu": on_gpu, "cpu_threads": None if on_gpu else actors.torch_threads,
            },
            "requests": requests,
            "run": {"pairs_per_shard": settings.run.pairs_per_shard},
            "plan": plan.digest,
        }
    )  # fmt: skip


def prompt_config(settings: Settings) -> dict[str, Any]:
    """Everything that changes a prompt: settings, and in place of the template's name what its file says."""
    return {**_plain(settings.prompt), **_words(settings)}


def _words(settings: Settings) -> dict[str, Any]:
    """What users and items are called in."""
    said = settings.evidence.prompt
    return {"template": PromptTemplate(settings.prompt, evidence=said).digest, "evidence": said}


def _plain(section: Section, without: Collection[str] = ()) -> dict[str, Any]:
    """The section as JSON values.

    Args:
        without: settings that another artifact depends on, that say where it is made or when it is refused, or that
            name a place; what lies there is in the recipe by its digest.
    """
    return section.model_dump(mode="json", exclude=set(without))
