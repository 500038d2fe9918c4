"""What a client of the endpoint raises.

    ClientError                a call was not answered, or its answer cannot be read
    ├── Unreachable            no connection, or no answer in time, after all tries
    └── Refused                an answer of 4xx or 5xx: `status`, `code`, `fields`
        ├── Unauthorized       401: no token, or none that is valid
        ├── Invalid            400, 413, 422: the arguments are wrong, also where they are not even sent
        └── Busy               429, 502, 503, 504 after all tries

No text of theirs holds the token.
"""

from collections.abc import Sequence

from optirag_core.errors import OptiragError

RETRIED = (429, 502, 503, 504)
"""Statuses of a service that is full, or a proxy whose service is away."""


class ClientError(OptiragError):
    """A call was not answered, or its answer cannot be read."""


class Unreachable(ClientError):
    """No connection, or no answer in time."""


class Refused(ClientError):
    """The service says no, and why."""

    def __init__(self, call: str, status: int, code: str, message: str, fields: Sequence[str] = ()) -> None:
        wrong = f" ({', '.join(fields)})" if fields else ""
        super().__init__(f"{call}: {status} {code}: {message}{wrong}")
        self.status, self.code, self.fields = status, code, tuple(fields)


class Unauthorized(Refused):
    """No token, or none that is valid."""


class Invalid(Refused):
    """The arguments are wrong; `fields` are the paths of those that are."""


class Busy(Refused):
    """The service is full or away, and was so every time."""


KINDS = {401: Unauthorized, 400: Invalid, 413: Invalid, 422: Invalid, **dict.fromkeys(RETRIED, Busy)}
