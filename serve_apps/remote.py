"""One way to call an object in this process and a deployment on Ray: methods that are awaited."""

from collections.abc import Awaitable, Callable
from typing import Any

from ray.serve.handle import DeploymentHandle


class Remote:
    """A deployment's methods as coroutines, asked over gRPC: a call takes half the time of one through Ray's core."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle.options(_by_reference=False)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return getattr(self._handle, name).remote


def awaited(target: Any) -> Any:
    """A deployment's handle as a `Remote`; any other object as it is."""
    return Remote(target) if isinstance(target, DeploymentHandle) else target
