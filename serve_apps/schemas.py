"""What the endpoint takes and gives: every field with its bounds. `score` is p(yes) in [0, 1]."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

MAX_ITEMS = 1000
MAX_EVENTS = 1000
MAX_INLINE_HISTORY = 200
MAX_TOP_K = 1000
MAX_EXPLAINED = 50
"""Items: an explanation runs all layers, and everybody waits meanwhile."""
MAX_ID = 256
"""Characters of an id."""

EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _no_number(value: Any) -> Any:
    """pydantic would take numbers for seconds, and large ones for milliseconds."""
    if not isinstance(value, str | datetime):
        raise ValueError("expected ISO 8601 text with a time zone")
    return value


def _plausible(moment: datetime) -> datetime:
    if not EARLIEST <= moment < LATEST:
        raise ValueError("expected a year from 1900 to 2199")
    return moment


Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$")]
Moment = Annotated[AwareDatetime, BeforeValidator(_no_number), AfterValidator(_plausible)]
Rating = Annotated[float, Field(ge=-1e6, le=1e6, strict=True)]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K, strict=True)]


def _check_explained(num_items: int, *, explain: bool) -> None:
    if explain and num_items > MAX_EXPLAINED:
        raise ValueError(f"{num_items} items to explain, at most {MAX_EXPLAINED} are: ask for fewer")


class Body(BaseModel):
    """A request's body: nothing unknown in it, no number that is none, no text for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Answer(BaseModel):
    """What comes back."""

    model_config = ConfigDict(frozen=True)


class HistoryEntry(Body):
    """One interaction of the user that the service does not know of."""

    item_id: Id
    rating: Rating
    event_time: Moment | None = Field(None, description="default: before the moment that is asked about")


class UserRequest(Body):
    """Whose opinion is asked, at which moment."""

    user_id: Id = Field(description="any; of an unknown user the inline history is all that is known")
    as_of: Moment | None = Field(None, description="nothing at or after it is used; only for data with times")
    as_of_position: Annotated[int, Field(ge=0, lt=2**31, strict=True)] | None = Field(
        None, description="nothing of the user from this place of the user's own order on is used"
    )
    position: Annotated[int, Field(ge=0, lt=2**53, strict=True)] = Field(
        0, description="that `/v1/interactions` has answered: the call knows all events until there, at any replica"
    )
    history: list[HistoryEntry] = Field(
        [], max_length=MAX_INLINE_HISTORY, description="oldest first, behind what is known; used by this call alone"
    )


class ScoreRequest(UserRequest):
    """Candidates of one user."""

    item_ids: list[Id] = Field(min_length=1, max_length=MAX_ITEMS)
    explain: bool = Field(
        False, strict=True, description=f"say of every item, at most {MAX_EXPLAINED}, what `GET /v1/explain` says"
    )

    @model_validator(mode="after")
    def _few_explained(self) -> "ScoreRequest":
        _check_explained(len(self.item_ids), explain=self.explain)
        return self


class RankRequest(ScoreRequest):
    """Candidates of one user, of which the best are asked for."""

    top_k: TopK | None = Field(None, description="default: all")


class RecommendRequest(UserRequest):
    """A user without candidates: the retriever finds them."""

    top_k: TopK = 10
    num_candidates: TopK = Field(50, description="items of the retriever that the LLM scores")
    explain: bool = Field(False, strict=True)

    @model_validator(mode="after")
    def _enough_candidates(self) -> "RecommendRequest":
        if self.top_k > self.num_candidates:
            raise ValueError(f"top_k {self.top_k} exceeds num_candidates {self.num_candidates}")
        _check_explained(self.num_candidates, explain=self.explain)
        return self


class Problem(Answer):
    """Why a pair, an event or a whole call was refused."""

    code: str = Field(description="for programs, e.g. unknown_item")
    message: str = Field(description="what came, what was expected, what to do")


class LayerView(Answer):
    """What the head at one layer says of a pair at full depth."""

    layer: int = Field(description="1-based; 0 is the head on the evidence alone")
    score: float
    evidence_logit: float | None = Field(description="what the evidence adds to the log-odds; null: it reads none")
    text_logit: float | None = Field(description="what the LLM's hidden state adds to the log-odds; null at layer 0")
    in_use: bool = Field(description="the policy may stop here")
    stops: bool = Field(description="the policy's criterion holds here")


class Explanation(Answer):
    """How a score came about; says nothing of other users but how many and how similar."""

    similarities: list[float] = Field(description="cosine of each similar user, most similar first")
    layers: list[LayerView]
    evidence_score: float | None = Field(description="p(yes) of a regression on what everybody thought")
    stop: str = Field(description="one sentence: which head stopped it and why")
    prompt_sha256: str = Field(description="of the prompt's token ids, as little-endian int32")


class ScoredItem(Answer):
    """One candidate: a score, or the problem that there was."""

    item_id: str
    title: str | None = None
    score: float | None = None
    exit_layer: int | None = Field(None, description="1-based; 0: stopped on its evidence alone")
    problem: Problem | None = None
    explanation: Explanation | None = None


class Tokens(Answer):
    """Size of the call's prompts."""

    prefix: int = Field(description="shared by all items of the call")
    suffixes: int = Field(description="of all items together")
    dropped_entries: int = Field(description="history entries that had no room")
    dropped_users: int = Field(description="similar users that had no room")


class Timings(Answer):
    """Milliseconds of the call inside of the service."""

    context_ms: float = Field(description="history, similar users, evidence, prompt")
    queue_ms: float = Field(description="until the engine took the call in")
    engine_ms: float


class ScoreAnswer(Answer):
    """Scores in the order asked; of rank and recommend the best first."""

    user_id: str
    items: list[ScoredItem]
    cold_start: bool = Field(description="the user has no interactions that the retriever could use")
    num_similar_users: int
    unknown_entries: int = Field(0, description="of the inline history: left out, since their items are unknown")
    model_version: str
    policy: Literal["normal", "overload"] = Field(
        description="overload: the service was busy and answered by its cheaper certified exit policy"
    )
    tokens: Tokens
    timings: Timings


class Interaction(Body):
    """Something that a user has just done."""

    event_id: Id = Field(description="of the caller; the same id counts once, however often it is sent")
    user_id: Id
    item_id: Id
    rating: Rating
    event_time: Moment | None = Field(None, description="default: now")


class InteractionsRequest(Body):
    """Events in the order in which they happened."""

    events: list[Interaction] = Field(min_length=1, max_length=MAX_EVENTS)


class EventOutcome(Answer):
    """What became of one event."""

    event_id: str
    status: Literal["stored", "duplicate", "refused"]
    problem: Problem | None = None


class InteractionsAnswer(Answer):
    """One outcome per event, in order. What is stored is on disk."""

    outcomes: list[EventOutcome]
    position: int = Field(description="of the log, behind these events")


class ShownEntry(Answer):
    """One interaction as the user's page shows it."""

    item_id: str
    title: str
    rating: float


class UserAnswer(Answer):
    """What is known of a user."""

    user_id: str
    cold_start: bool
    num_similar_users: int
    similarities: list[float]
    history: list[ShownEntry] = Field(description="newest last, as a prompt would show it")


class UsersAnswer(Answer):
    """Some users that the service knows."""

    user_ids: list[str]


class KnownItem(Answer):
    """An item that can be asked about."""

    item_id: str
    title: str


class ItemsAnswer(Answer):
    """Some items, by a part of their title."""

    items: list[KnownItem]


class PolicyAnswer(Answer):
    """An exit policy and its certificate."""

    criterion: str
    layers: list[int]
    threshold: float
    window: int
    evidence_confidence: float | None
    flops_share: float | None = Field(description="of full depth's, on the users that certified it")
    mean_exit_layer: float | None
    certificate: str | None = Field(description="in one sentence; null: a policy without one")


class ModelAnswer(Answer):
    """What answers."""

    model_version: str
    digests: dict[str, str] = Field(description="sha256 of each artifact's manifest")
    num_layers: int
    exit_layers: list[int]
    policies: dict[str, PolicyAnswer]
    timed: bool = Field(description="as_of and event_time mean something")
    like_threshold: float = Field(description="a rating above it counts as liked")


class ErrorAnswer(Answer):
    """Every answer of 4xx and 5xx."""

    problem: Problem
    fields: list[str] = Field([], description="of a 422: paths of the wrong fields, e.g. body.item_ids.3")
