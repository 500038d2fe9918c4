"""What the endpoint's processes say to each other: plain values, of which each is pickled once on its way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.inference.explain import Explanation
from optirag_core.prompting.assembly import Reject, Request
from serve_apps.version import Version


@dataclass(frozen=True)
class NamedRequest(Request):
    """A request of which all is named, as a call's."""

    user_id: str
    item_ids: Sequence[str]


@dataclass(frozen=True)
class Call:
    """Candidates of one user, or a number of them to be found."""

    request: NamedRequest  # without item_ids where candidates are asked for
    position: int = 0  # of the event log: what lies before it counts
    num_candidates: int = 0
    explain: bool = False


@dataclass(frozen=True)
class Context:
    """A call's prompts, and what its answer says beside the scores."""

    group: UserGroup | None  # None: no item can be scored
    user_id: str
    asked: Sequence[str]  # as they were asked, or found
    candidates: Sequence[str]  # of the group's suffixes
    rejects: Sequence[Reject]
    titles: Mapping[str, str]  # of the known items
    cold_start: bool
    similarities: Sequence[float]
    num_similar_users: int = 0  # shown
    dropped_entries: int = 0
    dropped_users: int = 0
    unknown_entries: int = 0  # of the call's own history, left out
    seconds: float = 0.0


@dataclass(frozen=True)
class Reply:
    """What a scorer gives."""

    scores: Sequence[PairScore]  # of the group's suffixes
    explanations: Sequence[Explanation] | None
    policy: str
    model_version: str
    queue_s: float
    engine_s: float


@dataclass(frozen=True)
class OtherVersion:
    """A scorer has no prompts of its own version: it names it, for the call to come again with them."""

    version: Version


@dataclass(frozen=True)
class Refused:
    """A call that was not answered, and why."""

    status: int
    code: str
    message: str
    retry_after_s: int | None = None
