"""What a replica answers with: settings and the artifacts that were pinned when the app was built."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Self

from optirag_core.config.settings import Settings
from optirag_core.config_file import settings_from
from optirag_core.errors import ConfigError
from optirag_core.inference.opening import TRAINED, Artifacts, Pin, open_artifacts
from optirag_core.inference.parts import check_prompts_fit

ANSWERING = ("workspace", "prompt", "evidence", "engine", "exit_heads", "exit_policy", "llm")
"""Sections of the settings that an answer depends on, beside the artifacts."""


@dataclass(frozen=True)
class Version:
    """Settings and artifacts as plain values, which travel with a call: a prompt is made by exactly what scores it."""

    settings: Mapping[str, Any]
    pins: Mapping[str, Pin]

    @classmethod
    def of(cls, settings: Settings, versions: Mapping[str, str] | None = None) -> Self:
        """The newest artifacts, or those that are named, verified.

        Args:
            versions: kind -> version of the artifacts that shall not be the newest.

        Raises:
            ArtifactError: one is missing, damaged, or does not fit the others.
            ConfigError: the LLM cannot read the prompts that the settings allow, or a kind is unknown.
        """
        if unknown := [kind for kind in versions or () if kind not in TRAINED]:
            raise ConfigError(f"artifacts names {unknown[0]!r}: expected one of {', '.join(TRAINED)}")
        artifacts = open_artifacts(settings, *TRAINED, versions=versions)
        check_prompts_fit(settings, artifacts)
        return cls(settings.model_dump(mode="json"), artifacts.pins)

    def open(self) -> tuple[Settings, Artifacts]:
        """The same settings and artifacts in another process.

        Raises:
            ArtifactError: an artifact has changed since.
        """
        settings = settings_from(self.settings)
        return settings, open_artifacts(settings, *self.pins, pins=self.pins)

    @cached_property
    def key(self) -> str:
        """The same for the same answers."""
        pins = {kind: [pin.version, pin.digest] for kind, pin in self.pins.items()}
        settings = {name: self.settings[name] for name in ANSWERING}
        return sha256(json.dumps([settings, pins], sort_keys=True).encode()).hexdigest()
