"""The endpoint as an application of Ray Serve: an ingress, context builders, scorers.

serve run serve_apps.app:build_app config=ray_jobs/configs/demo.yaml insecure_no_auth=true
serve deploy serve_apps/config.yaml

A changed argument (another `revision`, named `artifacts`) rolls an update: old replicas answer until new ones are
ready.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import Field
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from optirag_core.config.section import Section
from optirag_core.config.serving import ServingSettings
from optirag_core.config.settings import Settings
from optirag_core.config_file import load_settings
from serve_apps.api import create_api
from serve_apps.auth import RequireToken, Tokens
from serve_apps.contexts import ContextBuilder
from serve_apps.limits import LimitBodies
from serve_apps.scoring import ScorerReplica
from serve_apps.service import Service
from serve_apps.version import Version


class Arguments(Section):
    """What `build_app` takes from the command line, or from `args` of a Serve config file."""

    config: str = Field(description="YAML file of settings")
    settings: dict[str, Any] = Field({}, description="further settings by dotted key, e.g. serving.max_calls: 128")
    workspace: str | None = Field(None, description="short for the setting of that name")
    artifacts: dict[str, str] = Field({}, description="kind -> version, where it shall not be the newest: a rollback")
    revision: str = Field("", description="any text; another one deploys the newest artifacts")
    tokens_file: str | None = Field(None, description="see serve_apps/auth.py; default: the environment")
    insecure_no_auth: bool = Field(False, description="everybody who reaches the port may ask")


@dataclass(frozen=True)
class Doors:
    """Who gets in."""

    tokens_file: str | None
    insecure_no_auth: bool

    def open(self) -> Tokens | None:
        """The tokens; None lets everybody in.

        Raises:
            ConfigError: there are none, and nobody said that there shall be none.
        """
        if self.insecure_no_auth:
            return None
        return Tokens.from_environment(Path(self.tokens_file) if self.tokens_file else None)


class Endpoint:
    """The ingress replica."""

    def __init__(
        self, scorers: DeploymentHandle, contexts: DeploymentHandle | None, version: Version, doors: Doors
    ) -> None:
        """
        Args:
            contexts: None has them built in this replica.
        """
        self._serving, self._doors = ServingSettings(**version.settings["serving"]), doors
        self._own = None if contexts else ContextBuilder(version)
        self._service = Service(scorers, contexts or self._own, version, self._serving)

    def check_health(self) -> None:
        """Serve asks; an error ends the replica."""
        if self._own:
            self._own.check_health()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Serve calls it once, after the constructor."""
        return guarded(create_api(self._service), self._doors.open(), max_body_bytes=self._serving.max_body_bytes)


def guarded(api: FastAPI, tokens: Tokens | None, *, max_body_bytes: int) -> ASGIApp:
    """The routes behind tokens and limits: who may not ask is told so before anything of a request is read.

    Args:
        tokens: None lets everybody in.
    """
    limited = LimitBodies(api, max_bytes=max_body_bytes)
    return limited if tokens is None else RequireToken(limited, tokens)


def build_app(arguments: Arguments) -> Application:
    """Open and pin the artifacts, and say what runs where.

    Raises:
        ConfigError, ArtifactError: as everywhere; nothing has been changed then.
    """
    given = dict(arguments.settings)
    if arguments.workspace:
        given["workspace"] = arguments.workspace
    settings = load_settings(Path(arguments.config), [(key, str(value)) for key, value in given.items()])
    return application(settings, Doors(arguments.tokens_file, arguments.insecure_no_auth), versions=arguments.artifacts)


def application(settings: Settings, doors: Doors, *, versions: Mapping[str, str] | None = None) -> Application:
    """The same of settings.

    Args:
        versions: kind -> version of the artifacts that shall not be the newest.
    """
    doors.open()  # fails here rather than in every replica
    version = Version.of(settings, versions)
    contexts = _contexts(settings).bind(version) if settings.serving.num_context_builders else None
    return _endpoint(settings).bind(_scorers(settings).bind(version), contexts, version, doors)


def _endpoint(settings: Settings) -> serve.Deployment:
    """HTTP in and out; where there are no context builders, their work as well."""
    serving = settings.serving
    alone = settings.actors.num_cpus_per_prompt_builder if not serving.num_context_builders else 0.0
    return serve.deployment(
        name="Endpoint",
        num_replicas=serving.num_ingresses,
        max_ongoing_requests=_all_calls(settings),
        ray_actor_options={"num_cpus": serving.num_cpus_per_ingress + alone},
        **_common(settings),
    )(serve.ingress()(Endpoint))


def _contexts(settings: Settings) -> serve.Deployment:
    """Call -> prompt tokens, on CPUs."""
    serving = settings.serving
    return serve.deployment(
        name="ContextBuilder",
        max_ongoing_requests=_all_calls(settings),
        ray_actor_options={"num_cpus": settings.actors.num_cpus_per_prompt_builder},
        **_replicas(serving.num_context_builders, serving.max_context_builders, target=4.0),
        **_common(settings),
    )(ContextBuilder)


def _scorers(settings: Settings) -> serve.Deployment:
    """Prompt tokens -> p(yes): one GPU each, where there are any."""
    serving, actors = settings.serving, settings.actors
    options: dict[str, Any] = {"num_cpus": actors.num_cpus_per_scorer, "num_gpus": actors.num_gpus_per_scorer}
    if actors.accelerator_type:
        options["accelerator_type"] = actors.accelerator_type
    if actors.memory_gib_per_scorer:
        options["memory"] = actors.memory_gib_per_scorer * 2**30
    return serve.deployment(
        name="Scorer",
        max_ongoing_requests=2 * serving.max_calls,  # the replica itself refuses, and says for how long
        ray_actor_options=options,
        **_replicas(serving.num_scorers, serving.max_scorers, target=serving.overload_share * serving.max_calls / 2),
        **_common(settings),
    )(ScorerReplica)


def _replicas(least: int, most: int | None, *, target: float) -> dict[str, Any]:
    """
    Args:
        target: calls in a replica that autoscaling aims at.
    """
    if not most or most == least:
        return {"num_replicas": least}
    scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": target}
    return {"autoscaling_config": scaling}


def _common(settings: Settings) -> dict[str, Any]:
    serving = settings.serving
    return {
        "max_surge_percent": 100,  # an update starts new replicas before it ends old ones
        "health_check_period_s": serving.health_period_s,
        "health_check_timeout_s": 3 * serving.health_period_s,
        "graceful_shutdown_timeout_s": serving.shutdown_s,
        "logging_config": {"enable_access_log": False},  # its paths hold ids
    }


def _all_calls(settings: Settings) -> int:
    """More than all scorers take, so that they refuse and not somebody in front of them."""
    serving = settings.serving
    return math.ceil(2 * serving.max_calls * (serving.max_scorers or serving.num_scorers) + 100)
