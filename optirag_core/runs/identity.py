"""What a run is: everything that its scores depend on, under one id."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optirag_core.errors import RunMismatch
from optirag_core.storage.base import Storage

RUN_FILE = "run.json"


@dataclass(frozen=True)
class RunIdentity:
    """Named values: checksums of the inputs, digests of the artifacts, the prompt and the plan, and the settings."""

    fields: Mapping[str, Any]  # dotted names -> what JSON knows

    @classmethod
    def of(cls, nested: Mapping[str, Any]) -> "RunIdentity":
        """Fields of nested mappings, under dotted names."""
        return cls(dict(_flattened(nested, "")))

    @property
    def run_id(self) -> str:
        """sha256 over the fields: 64 hex digits."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def claim(self, storage: Storage, folder: str) -> None:
        """Begin the run in this folder, or go on with it.

        Raises:
            RunMismatch: the folder holds another run; the message names what differs.
        """
        found = json.loads(storage.create(f"{folder}/{RUN_FILE}", self._text().encode()))
        names = sorted(name for name in found.keys() | self.fields.keys() if self._differs(found, name))
        if names:
            first = names[0]
            others = f" (and {', '.join(names[1:6])}{', ...' if len(names) > 6 else ''})" if names[1:] else ""
            raise RunMismatch(
                f"{folder} was begun with {first} = {_shown(found, first)}, now it is {_shown(self.fields, first)}"
                f"{others}: restore it, or give another run.name"
            )

    def _differs(self, found: Mapping[str, Any], name: str) -> bool:
        return name not in found or name not in self.fields or found[name] != self.fields[name]

    def _text(self) -> str:
        return json.dumps(self.fields, indent=1, sort_keys=True)


def _flattened(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flattened(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, list(value) if isinstance(value, tuple) else value


def _shown(fields: Mapping[str, Any], name: str) -> str:
    if name not in fields:
        return "not there"
    value = fields[name]
    return value[:12] if isinstance(value, str) and len(value) == 64 else json.dumps(value)
