"""The journal of one erasure: there from its first step on, and ended by its last.

It names the user by a hash alone; so the command is given the id again to finish.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from optirag_core.erasure.user import erased_tokens, journal_file, token_of
from optirag_core.errors import ErasureUnfinished
from optirag_core.storage.base import Storage


@dataclass(frozen=True)
class Journal:
    """Of one user."""

    storage: Storage
    token: str

    @classmethod
    def begin(cls, storage: Storage, user_id: str) -> "Journal":
        """Begin an erasure, or go on with it.

        Raises:
            ErasureUnfinished: another one is to be finished first.
        """
        journal = cls(storage, token_of(user_id))
        for token in sorted(erased_tokens(storage) - {journal.token}):
            entry = cls(storage, token).read()
            if "finished_at" not in entry:
                raise ErasureUnfinished(
                    f"{storage.uri}/{journal_file(token)}: the erasure of another user was begun at "
                    f"{entry['begun_at']} and not finished: run erase_user with that user's id first"
                )
        storage.create(journal_file(journal.token), _text({"begun_at": _now()}))
        return journal

    def read(self) -> dict[str, Any]:
        """When it was begun, and, where it is finished, when and what was found."""
        return json.loads(self.storage.read(journal_file(self.token)) or b"{}")

    def finish(self, found: dict[str, Any]) -> None:
        """
        Args:
            found: numbers and names of artifacts, nothing of the user.
        """
        entry = {"begun_at": self.read()["begun_at"], "finished_at": _now(), **found}
        self.storage.write(journal_file(self.token), _text(entry))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _text(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, indent=1).encode()
