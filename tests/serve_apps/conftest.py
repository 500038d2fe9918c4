"""The endpoint in this process: its parts on the finished run's artifacts, with an event log of their own."""

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from optirag_core.config.settings import Settings
from serve_apps.api import create_api
from serve_apps.app import guarded
from serve_apps.auth import Tokens, new_token
from serve_apps.contexts import ContextBuilder
from serve_apps.scoring import ScorerReplica
from serve_apps.service import Service
from serve_apps.version import Version


@pytest.fixture(scope="module")
def version(own_workspace: Settings) -> Version:
    return Version.of(own_workspace)


@pytest.fixture(scope="module")
def contexts(version: Version) -> ContextBuilder:
    return ContextBuilder(version)


@pytest.fixture(scope="module")
def scorer(version: Version) -> ScorerReplica:
    return ScorerReplica(version)


@pytest.fixture(scope="module")
def service(
    own_workspace: Settings, scorer: ScorerReplica, contexts: ContextBuilder, version: Version
) -> Service:  # fmt: skip
    return Service(scorer, contexts, version, own_workspace.serving)


@pytest.fixture(scope="module")
def token() -> tuple[str, str]:
    """In clear, and its line."""
    return new_token("test")


@pytest.fixture(scope="module")
def client(service: Service, own_workspace: Settings, token: tuple[str, str]) -> Iterator[TestClient]:
    """HTTP without a socket, with a valid token."""
    serving = own_workspace.serving
    app = guarded(create_api(service), Tokens(hashes=token[1]), max_body_bytes=serving.max_body_bytes)
    with TestClient(app, headers={"Authorization": f"Bearer {token[0]}"}, raise_server_exceptions=False) as client:
        yield client


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns."""
    return asyncio.run(coroutine)
