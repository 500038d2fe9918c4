"""Artifacts of one lineage and one prompt: opened, verified against each other, and pinned for other processes."""

from collections.abc import Mapping
from dataclasses import dataclass

from optirag_core.artifacts import MADE_BY, Artifact, Workspace
from optirag_core.config.settings import Settings
from optirag_core.errors import ArtifactMismatch
from optirag_core.recipes import prompt_config

TRAINED = ("dataset", "evidence", "retriever", "index", "llm", "exit_heads", "exit_policy")
"""All that scoring needs, parents first."""

APART = {("evidence", "retriever"), ("evidence", "index"), ("exit_features", "scores")}
"""Made beside each other, neither from the other."""

MADE_WITH_PROMPTS = ("llm", "exit_features", "exit_heads", "scores")


@dataclass(frozen=True)
class Pin:
    """Exactly one artifact: a folder made anew under the same version has another digest."""

    version: str
    digest: str


@dataclass(frozen=True)
class Artifacts:
    """Verified artifacts that fit each other."""

    workspace: Workspace
    by_kind: Mapping[str, Artifact]

    def __getitem__(self, kind: str) -> Artifact:
        return self.by_kind[kind]

    @property
    def digests(self) -> dict[str, str]:
        return {kind: artifact.digest for kind, artifact in self.by_kind.items()}

    @property
    def pins(self) -> dict[str, Pin]:
        return {kind: Pin(artifact.version, artifact.digest) for kind, artifact in self.by_kind.items()}


def open_artifacts(
    settings: Settings, *kinds: str, pins: Mapping[str, Pin] | None = None,
    versions: Mapping[str, str] | None = None, run: str | None = None,
) -> Artifacts:  # fmt: skip
    """Open artifacts, parents first.

    Args:
        pins: the artifacts that another process has opened; without them the newest of each kind.
        versions: instead of the newest, by kind.
        run: of `scores`, the run or what points at it; default the newest.

    Raises:
        ArtifactMissing, ArtifactCorrupt: from the workspace.
        ArtifactMismatch: an artifact was made from other parents than those at hand, with another prompt than the
            settings', or is not the pinned one.
    """
    workspace = Workspace(settings.workspace, settings.storage)
    opened: dict[str, Artifact] = {}
    for kind in kinds:
        named = run if kind == "scores" else (versions or {}).get(kind)
        artifact = workspace.open(kind, pins[kind].version if pins else named)
        if pins and artifact.digest != pins[kind].digest:
            raise ArtifactMismatch(f"{kind}/{artifact.version} has changed since the job began: run the job again")
        for parent in opened.values():
            if (parent.kind, kind) not in APART:
                artifact.require_parent(parent)
        _require_prompt(artifact, settings)
        opened[kind] = artifact
    return Artifacts(workspace, opened)


def _require_prompt(artifact: Artifact, settings: Settings) -> None:
    """Raise where the artifact was made with another prompt than the settings now give."""
    if artifact.kind not in MADE_WITH_PROMPTS:
        return
    made_with = _prompt_of(artifact)
    now = prompt_config(settings)
    changed = [name for name in {**made_with, **now} if made_with.get(name) != now.get(name)]
    if changed:
        name = "evidence.prompt" if changed[0] == "evidence" else f"prompt.{changed[0]}"
        raise ArtifactMismatch(
            f"{artifact.kind}/{artifact.version} was made with another prompt: {name} was "
            f"{_shown(made_with.get(changed[0]))}, now it is {_shown(now.get(changed[0]))}; run "
            f"{MADE_BY[artifact.kind]} again, or restore the setting"
        )


def _prompt_of(artifact: Artifact) -> dict[str, object]:
    """What the artifact's manifest says of the prompt; a run's says it under dotted names."""
    config = artifact.manifest["config"]
    dotted = {name.removeprefix("prompt."): config[name] for name in config if name.startswith("prompt.")}
    return config.get("prompt", dotted)


def _shown(value: object) -> object:
    return value[:12] if isinstance(value, str) and len(value) == 64 else value
