"""One way to call an object in this process and a deployment on Ray: methods that are awaited."""

from collections.abc import Awaitable, Callable
from typing import Any

from ray.serve.handle import DeploymentHandle


class Remote:
    """A deployment's methods as coroutines."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return getattr(self._handle, name).remote


def awaited(target: Any) -> Any:
    """A deployment's handle as a `Remote`; any other object as it is."""
    return Remote(target) if isinstance(target, DeploymentHandle) else target
