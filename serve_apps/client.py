"""A synchronous client of the endpoint: plain arguments in, the models of `serve_apps.schemas` out.

    with Client("http://127.0.0.1:8000", token="...") as client:
        for item in client.rank("276762", ["0000000019", "0000000027"]).items:
            print(item.score, item.title)

Needs httpx and pydantic alone. What it raises is drawn in `serve_apps.client_errors`.

A call is tried again after 429, 502, 503, 504 and lost connections, as the service says in `Retry-After`, or after a
random time that doubles. All calls may be repeated: what is sent twice under one `event_id` counts once.
"""

import random
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from serve_apps import schemas
from serve_apps.client_errors import KINDS, RETRIED, ClientError, Invalid, Refused, Unreachable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
LOST = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)
"""A connection that was not made, or broke off."""

JSON = {"Content-Type": "application/json"}

History = Sequence[schemas.HistoryEntry | Mapping[str, Any]]
Model = TypeVar("Model", bound=BaseModel)


class Client:
    """One service and its open connections; may be used from several threads.

    Every method but `ready` raises a `ClientError` where there is no answer.
    """

    def __init__(
        self, base_url: str, token: str | None = None, *, timeout_s: float = 30.0, max_retries: int = 8,
        max_total_s: float = 120.0,
    ) -> None:  # fmt: skip
        """
        Args:
            base_url: e.g. http://127.0.0.1:8000
            token: a bearer token; it is shown nowhere.
            timeout_s: of one try, without a byte from the service.
            max_retries: tries after the first one.
            max_total_s: no try begins later than this after the first one.
        """
        token = (token or "").strip()  # a file ends in a line break
        if not (token.isascii() and token.isprintable()):
            raise ClientError("the token is no ASCII text of one line: give one that `serve_apps.auth new` made")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout_s)
        except httpx.InvalidURL as error:
            raise ClientError(f"base_url is no URL: {error}: give e.g. http://127.0.0.1:8000") from None
        self._max_retries, self._max_total_s = max_retries, max_total_s
        self._position = 0  # of the event log, behind what this client has stored

    def __repr__(self) -> str:
        return f"Client({self._http.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def score(
        self, user_id: str, item_ids: Sequence[str], *, history: History = (), as_of: datetime | None = None,
        as_of_position: int | None = None, explain: bool = False,
    ) -> schemas.ScoreAnswer:  # fmt: skip
        """p(yes) of each item, in the order asked; of one that cannot be scored, its `problem`.

        Args:
            history: what the service does not know of the user, oldest first.
            as_of: with a time zone; nothing at or after it is used.
            as_of_position: nothing of the user from this place of the user's own order on is used.
            explain: how each score came about; runs all layers.
        """
        body = self._body(
            "score", schemas.ScoreRequest, user_id=user_id, item_ids=item_ids, history=history, as_of=as_of,
            as_of_position=as_of_position, explain=explain,
        )  # fmt: skip
        return self._post("score", body, schemas.ScoreAnswer)

    def rank(
        self, user_id: str, item_ids: Sequence[str], *, top_k: int | None = None, history: History = (),
        as_of: datetime | None = None, as_of_position: int | None = None, explain: bool = False,
    ) -> schemas.ScoreAnswer:  # fmt: skip
        """The same, best first; behind them the items that cannot be scored."""
        body = self._body(
            "rank", schemas.RankRequest, user_id=user_id, item_ids=item_ids, top_k=top_k, history=history, as_of=as_of,
            as_of_position=as_of_position, explain=explain,
        )  # fmt: skip
        return self._post("rank", body, schemas.ScoreAnswer)

    def recommend(
        self, user_id: str, *, top_k: int = 10, num_candidates: int = 50, history: History = (),
        as_of: datetime | None = None, as_of_position: int | None = None, explain: bool = False,
    ) -> schemas.ScoreAnswer:  # fmt: skip
        """The best of the items that the retriever finds for the user."""
        body = self._body(
            "recommend", schemas.RecommendRequest, user_id=user_id, top_k=top_k, num_candidates=num_candidates,
            history=history, as_of=as_of, as_of_position=as_of_position, explain=explain,
        )  # fmt: skip
        return self._post("recommend", body, schemas.ScoreAnswer)

    def explain(self, user_id: str, item_id: str) -> schemas.ScoreAnswer:
        """How the score of one pair comes about."""
        # Not GET /v1/explain/USER/ITEM, which is the same: there an id with a slash would name another pair.
        return self.score(user_id, [item_id], explain=True)

    def interactions(self, events: Sequence[schemas.Interaction | Mapping[str, Any]]) -> schemas.InteractionsAnswer:
        """Store what users have just done; the next call knows it.

        Args:
            events: in the order in which they happened. One without an `event_id` gets a random one, which holds for
                the tries of this call alone: give your own where you may have to send it again.
        """
        named = [{"event_id": uuid.uuid4().hex, **event} if isinstance(event, Mapping) else event for event in events]
        body = self._body("interactions", schemas.InteractionsRequest, events=named)
        answer = self._post("interactions", body, schemas.InteractionsAnswer)
        self._position = max(self._position, answer.position)
        return answer

    def user(self, user_id: str) -> schemas.UserAnswer:
        """A user's history, and how many similar users there are."""
        return self._get(f"/v1/users/{_in_path(user_id)}", schemas.UserAnswer)

    def users(self, query: str = "", limit: int = 20) -> schemas.UsersAnswer:
        """Users whose ids begin with a text."""
        return self._get("/v1/users", schemas.UsersAnswer, query=query, limit=limit)

    def items(self, query: str = "", limit: int = 20) -> schemas.ItemsAnswer:
        """Items whose titles hold a text."""
        return self._get("/v1/items", schemas.ItemsAnswer, query=query, limit=limit)

    def model(self) -> schemas.ModelAnswer:
        """Which artifacts and exit policies answer."""
        return self._get("/v1/model", schemas.ModelAnswer)

    def ready(self) -> bool:
        """Whether a scorer answers now; tried once."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.RequestError:
            return False

    def _body(self, route: str, form: type[BaseModel], **values: Any) -> str:
        """JSON of the arguments; what the service would refuse is refused here, in the same way.

        A request brings the position of the events that this client has stored: the answer knows them.
        """
        if issubclass(form, schemas.UserRequest):
            values["position"] = self._position
        try:
            return form(**values).model_dump_json(exclude_none=True)
        except ValidationError as error:
            found = error.errors()
            paths = [".".join(["body", *map(str, problem["loc"])]) for problem in found]
            raise Invalid(f"POST /v1/{route}", 422, "invalid", found[0]["msg"], paths) from None

    def _post(self, route: str, body: str, answer: type[Model]) -> Model:
        request = self._http.build_request("POST", f"/v1/{route}", content=body, headers=JSON)
        return self._answered(f"POST /v1/{route}", request, answer)

    def _get(self, path: str, answer: type[Model], **query: Any) -> Model:
        return self._answered(f"GET {path}", self._http.build_request("GET", path, params=query or None), answer)

    def _answered(self, call: str, request: httpx.Request, answer: type[Model]) -> Model:
        response = self._tried(call, request)
        if not response.is_success:
            raise _refusal(call, response)
        try:
            return answer.model_validate_json(response.content)
        except ValidationError:
            raise ClientError(f"{call}: the answer is no {answer.__name__}: is this the service's URL?") from None

    def _tried(self, call: str, request: httpx.Request) -> httpx.Response:
        """The first answer that another try would not change, or the last one."""
        latest = time.monotonic() + self._max_total_s
        for number in count():
            came = self._once(call, request)
            if isinstance(came, httpx.Response) and came.status_code not in RETRIED:
                return came
            # behind what the service asks for a random time, so that not all who were refused come back at once
            wait_s = _asked_for_s(came) + random.random() * min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S)
            if number == self._max_retries or time.monotonic() + wait_s > latest:
                break
            time.sleep(wait_s)
        if isinstance(came, Unreachable):
            raise came
        return came

    def _once(self, call: str, request: httpx.Request) -> httpx.Response | Unreachable:
        try:
            return self._http.send(request)
        except httpx.RequestError as error:  # its own text may quote the request's headers
            why = f"{call}: {type(error).__name__}: check the URL, the network, and that the service runs"
            if isinstance(error, LOST):
                return Unreachable(why)
            raise Unreachable(why) from None


def retry_after_s(value: str, now: datetime) -> float:
    """What a `Retry-After` asks for: a number of seconds, or a date; 0 where it says neither."""
    if value.strip().isdecimal():
        return float(value)
    with suppress(ValueError):
        date = parsedate_to_datetime(value)
        return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())
    return 0.0


def _asked_for_s(came: httpx.Response | Unreachable) -> float:
    if isinstance(came, Unreachable):
        return 0.0
    return retry_after_s(came.headers.get("Retry-After", ""), datetime.now(UTC))


def _in_path(value: str) -> str:
    return quote(value, safe="").replace(".", "%2E")  # a user may be called ..


def _refusal(call: str, response: httpx.Response) -> Refused:
    status = response.status_code
    kind = KINDS.get(status, Refused)
    try:
        told = schemas.ErrorAnswer.model_validate_json(response.content)
    except ValidationError:
        return kind(call, status, "unknown", "the answer is not of this service: check the URL, and what is before it")
    return kind(call, status, told.problem.code, told.problem.message, told.fields)
