"""An erasure that dies at a step: a change of the storage, before it or after it.

python -m tests.erasure.dying URI USER STEP      exits with 86 there
"""

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from optirag_core.erasure.erase import Erasure, erase_user
from optirag_core.storage.base import Storage
from tests.erasure.workspaces import USER, opened

LEASE_S = 0.2
EXIT_CODE = 86
CHANGES = ("write", "create", "upload", "delete")
OF_THE_LEASE = ("/beats/", "/owners/")
"""Not counted: its thread writes at any time."""


class Killed(BaseException):
    """Nothing catches it."""


def killed() -> NoReturn:
    raise Killed


def dying(storage: Storage, step: int, *, after: bool = False, die: Callable[[], NoReturn] = killed) -> Storage:
    """The storage, with which nothing goes on from its step-th change on."""
    left = step

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any) -> Any:
            nonlocal left
            if any(part in str(argument) for argument in arguments for part in OF_THE_LEASE):
                return call(*arguments)
            left -= 1
            if left < 0 or (left == 0 and not after):
                die()
            result = call(*arguments)
            if left == 0:
                die()
            return result

        return change

    for name in CHANGES:
        setattr(storage, name, counted(getattr(storage, name)))
    return storage


def erase(uri: str, user_id: str = USER, storage: Storage | None = None) -> Erasure:
    workspace, plain = opened(uri)
    return erase_user(workspace, storage or plain, user_id, lease_s=LEASE_S)


def main() -> None:
    uri, user, step = sys.argv[1:]
    erase(uri, user, dying(opened(uri)[1], int(step), die=lambda: os._exit(EXIT_CODE)))


if __name__ == "__main__":
    main()
