"""One thing that a user has done, as a value and as a line of JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any, Self

DIGEST_BYTES = 16
"""Two of 2^32 events have the same digest with a chance of 2^-65."""


@dataclass(frozen=True)
class UserEvent:
    """An interaction that happened after the data set was made."""

    event_id: str  # of the caller
    user_id: str
    item_id: str
    rating: float
    time: int | None  # microseconds since 1970, UTC; None: the data has no times
    time_given: bool = True  # by the caller; False: it is when the event came in, and differs when it is sent again

    @property
    def digest(self) -> bytes:
        """Of everything that the caller said: equal for an event that is sent again, whatever the moment."""
        said = [self.user_id, self.item_id, float(self.rating), self.time if self.time_given else None]
        return _digest(json.dumps(said))

    @property
    def key(self) -> bytes:
        """The event's id, in the room of a digest."""
        return _digest(json.dumps(self.event_id))

    def to_line(self) -> bytes:
        """JSON without a line break; its numbers are read back exactly.

        Raises:
            ValueError: the rating is not finite.
        """
        return json.dumps({**vars(self), "rating": float(self.rating)}, allow_nan=False).encode()

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """
        Raises:
            ValueError: it is not what `to_line` writes; the message says in what.
        """
        values = json.loads(line)
        if not isinstance(values, Mapping) or set(values) != _NAMES:
            raise ValueError(f"expected an object with {', '.join(sorted(_NAMES))}")
        for name, value in values.items():
            if not _fits(name, value):
                raise ValueError(f"{name} is {value!r}")
        return cls(**values)


@dataclass(frozen=True)
class ErasedEvent:
    """What is left of an event whose user was erased: its place, and that its event_id was used."""

    key: bytes  # as that of the event

    @property
    def digest(self) -> bytes:
        """Unlike any event's: sent again, the event is in conflict with this one and is not stored."""
        return b"erased"

    def to_line(self) -> bytes:
        """JSON without a line break."""
        return json.dumps({"erased": self.key.hex()}).encode()


def logged_from_line(line: bytes) -> UserEvent | ErasedEvent:
    """
    Raises:
        ValueError: it is what neither `to_line` writes; the message says in what.
    """
    values = json.loads(line)
    if isinstance(values, Mapping) and set(values) == {"erased"}:
        if type(values["erased"]) is not str or len(values["erased"]) != 2 * DIGEST_BYTES:
            raise ValueError(f"erased is {values['erased']!r}")
        return ErasedEvent(bytes.fromhex(values["erased"]))
    return UserEvent.from_line(line)


_NAMES = {field.name for field in fields(UserEvent)}


def _fits(name: str, value: Any) -> bool:
    if name == "rating":
        return type(value) is float and math.isfinite(value)
    if name == "time":
        return value is None or type(value) is int
    return type(value) is (bool if name == "time_given" else str)


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()
