"""The client against real sockets: what it sends, what it gives back, when it comes again, and what it never says."""

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from fastapi import FastAPI, Request

from optirag_core.errors import OptiragError
from serve_apps import schemas
from serve_apps.auth import RequireToken, Tokens
from serve_apps.client import Client, retry_after_s
from serve_apps.client_errors import Busy, ClientError, Invalid, Refused, Unauthorized, Unreachable
from serve_apps.errors import answer_errors

from .guarded import HASHES, TOKEN, served

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def answered(items: Sequence[str], **changes: object) -> schemas.ScoreAnswer:
    values = {
        "user_id": "u",
        "items": [schemas.ScoredItem(item_id=item, score=0.5) for item in items],
        "cold_start": True,
        "num_similar_users": 0,
        "model_version": "v",
        "policy": "normal",
        "tokens": schemas.Tokens(prefix=1, suffixes=1, dropped_entries=0, dropped_users=0),
        "timings": schemas.Timings(context_ms=1, queue_ms=1, engine_ms=1),
    }
    return schemas.ScoreAnswer(**{**values, **changes})


def small_service(seen: list) -> FastAPI:
    """The routes with made-up answers; notes the bodies."""
    app = FastAPI()

    @app.post("/v1/score")
    async def score(asked: schemas.ScoreRequest) -> schemas.ScoreAnswer:
        seen.append(asked)
        return answered(asked.item_ids)

    @app.post("/v1/rank")
    async def rank(asked: schemas.RankRequest) -> schemas.ScoreAnswer:
        seen.append(asked)
        return answered(asked.item_ids[: asked.top_k])

    @app.post("/v1/recommend")
    async def recommend(asked: schemas.RecommendRequest) -> schemas.ScoreAnswer:
        seen.append(asked)
        return answered([f"i{number}" for number in range(asked.top_k)])

    @app.post("/v1/interactions")
    async def interactions(asked: schemas.InteractionsRequest) -> schemas.InteractionsAnswer:
        seen.append(asked)
        outcomes = [schemas.EventOutcome(event_id=event.event_id, status="stored") for event in asked.events]
        return schemas.InteractionsAnswer(outcomes=outcomes, position=1)

    @app.get("/v1/users")
    async def users(query: str, limit: int) -> schemas.UsersAnswer:
        return schemas.UsersAnswer(user_ids=[f"{query} {limit}"])

    @app.get("/v1/users/{user_id:path}")
    async def user(user_id: str) -> schemas.UserAnswer:
        return schemas.UserAnswer(user_id=user_id, cold_start=True, num_similar_users=0, similarities=[], history=[])

    @app.get("/v1/items")
    async def items(query: str, limit: int) -> dict[str, list]:
        return {"items": [{"item_id": str(limit), "title": query}]}

    @app.get("/v1/model")
    async def model(request: Request) -> dict:
        return {"no": "model"}

    @app.get("/readyz")
    async def readyz() -> str:
        return "ok"

    app.add_middleware(RequireToken, tokens=Tokens(hashes=HASHES))
    answer_errors(app)
    return app


@pytest.fixture(scope="module")
def seen() -> list:
    return []


@pytest.fixture(scope="module")
def url(seen: list) -> Iterator[str]:
    with served(small_service(seen)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, TOKEN) as client:
        yield client


@contextmanager
def scripted(answers: Sequence[bytes | None]) -> Iterator[tuple[str, list[bytes]]]:
    """A socket that gives one answer per connection, the last one for ever; None hangs up. Yields what came, too."""
    listener, came = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                answer = answers[min(len(came), len(answers) - 1)]
                came.append(whole_request(connection))
                if answer is not None:
                    connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", came
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def whole_request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    size = re.search(rb"content-length: (\d+)", request.lower())
    while size and len(request.partition(b"\r\n\r\n")[2]) < int(size[1]):
        request += connection.recv(65536)
    return request


def http(status: int, body: str = "", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers, "", body)
    return "\r\n".join(lines).encode()


USERS = http(200, '{"user_ids":["a"]}')
FULL = '{"problem":{"code":"overloaded","message":"come again"}}'


def test_each_method_sends_its_arguments_and_gives_a_typed_answer(client: Client, seen: list):
    seen.clear()
    moment = datetime(2020, 1, 2, tzinfo=UTC)
    history = [{"item_id": "h", "rating": 4, "event_time": moment}, schemas.HistoryEntry(item_id="g", rating=1.5)]
    assert [item.item_id for item in client.score("u", ("a", "b"), history=history, as_of=moment).items] == ["a", "b"]
    assert [item.item_id for item in client.rank("u", ["a", "b"], top_k=1, as_of_position=3).items] == ["a"]
    assert len(client.recommend("ü/\n"[:2], top_k=2, num_candidates=5, explain=True).items) == 2
    assert [item.item_id for item in client.explain("a/b", "c/d").items] == ["c/d"]
    scored, ranked, recommended, explained = seen
    assert scored == schemas.ScoreRequest(user_id="u", item_ids=["a", "b"], history=history, as_of=moment)
    assert ranked == schemas.RankRequest(user_id="u", item_ids=["a", "b"], top_k=1, as_of_position=3)
    assert recommended == schemas.RecommendRequest(user_id="ü/", top_k=2, num_candidates=5, explain=True)
    assert explained == schemas.ScoreRequest(user_id="a/b", item_ids=["c/d"], explain=True)
    assert client.users("a b", limit=3).user_ids == ["a b 3"]
    assert client.items("x&y=z", 7).items == [schemas.KnownItem(item_id="7", title="x&y=z")]
    assert client.ready()


@pytest.mark.parametrize("user_id", ["plain", "a/b", "..", ".", "50 %", "?x=1#y", "ü", "%2E"])
def test_any_id_reaches_the_service_as_it_is(client: Client, user_id: str):
    assert client.user(user_id).user_id == user_id


def test_an_event_without_an_id_gets_its_own(client: Client, seen: list):
    seen.clear()
    event = {"user_id": "u", "item_id": "i", "rating": 4}
    own = schemas.Interaction(event_id="mine", **event)
    first, second, third = client.interactions([event, event, own]).outcomes
    assert len({first.event_id, second.event_id}) == 2
    assert third.event_id == "mine"
    assert "event_id" not in event


@pytest.mark.parametrize(
    ("item_ids", "changes", "fields"),
    [
        ([], {}, ("body.item_ids",)),
        ("abc", {}, ("body.item_ids",)),
        (["a", ""], {}, ("body.item_ids.1",)),
        (["a"], {"as_of": datetime(2020, 1, 1)}, ("body.as_of",)),  # without a time zone
        (["a"], {"history": [{"item_id": "a", "rating": float("nan")}]}, ("body.history.0.rating",)),
        (["a"], {"history": [{"item_id": "a"}]}, ("body.history.0.rating",)),
    ],
)
def test_wrong_arguments_are_named_and_not_sent(client: Client, seen: list, item_ids, changes, fields):
    seen.clear()
    with pytest.raises(Invalid, match=r"POST /v1/score: 422 invalid: .*body\.") as refused:
        client.score("u", item_ids, **changes)
    assert (refused.value.fields, refused.value.status, seen) == (fields, 422, [])


def test_refusals_come_with_status_code_and_fields(url: str):
    with Client(url, "wrong") as stranger, pytest.raises(Unauthorized, match="401 unauthorized") as refused:
        stranger.model()
    assert (refused.value.status, refused.value.code, refused.value.fields) == (401, "unauthorized", ())
    with Client(url, TOKEN) as client:
        with pytest.raises(Invalid) as refused:
            client.users(limit="many")
        assert (refused.value.status, refused.value.fields) == (422, ("query.limit",))
        with pytest.raises(ClientError, match="the answer is no ModelAnswer"):
            client.model()
    with (
        scripted([http(404, "<html>")]) as (elsewhere, _),
        Client(elsewhere) as client,
        pytest.raises(Refused, match="404 unknown: the answer is not of this service"),
    ):
        client.model()
    assert all(issubclass(kind, OptiragError) for kind in (Busy, Invalid, Unauthorized, Unreachable))


def test_it_comes_again_when_the_service_is_full_or_away():
    answers = [http(429, FULL, "Retry-After: 0"), http(503), None, http(502), USERS]
    with scripted(answers) as (url, came), Client(url, max_retries=4) as client:
        assert client.users().user_ids == ["a"]
    assert len(came) == 5


def test_a_repeated_post_is_the_same_to_the_byte():
    """So an event counts once, whichever of the tries went through."""
    stored = http(200, '{"outcomes":[],"position":1}')
    with scripted([None, http(503), stored]) as (url, came), Client(url, TOKEN) as client:
        client.interactions([{"user_id": "u", "item_id": "i", "rating": 4}])
    assert len(came) == 3 and len(set(came)) == 1 and b'"event_id"' in came[0]


def test_it_waits_as_long_as_it_is_told(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr("serve_apps.client.time.sleep", slept.append)
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    answers = [http(429, FULL, "Retry-After: 7"), http(503, FULL, f"Retry-After: {later}"), http(503), USERS]
    with scripted(answers) as (url, _), Client(url) as client:
        client.users()
    assert 7.0 <= slept[0] <= 7.25 and 60.0 <= slept[1] <= 91.0 and 0.0 <= slept[2] <= 1.0


def test_tries_are_bounded_in_number_and_in_seconds():
    with scripted([http(429, FULL)]) as (url, came), Client(url, max_retries=2) as client:
        with pytest.raises(Busy, match="429 overloaded: come again") as busy:
            client.users()
        assert (len(came), busy.value.status, busy.value.code) == (3, 429, "overloaded")
    with scripted([http(503, FULL, "Retry-After: 3600")]) as (url, came), Client(url) as client:
        with pytest.raises(Busy):
            client.users()
        assert len(came) == 1
    with scripted([http(500, FULL)]) as (url, came), Client(url) as client:
        with pytest.raises(Refused, match="500"):
            client.users()
        assert len(came) == 1


def test_a_service_that_is_not_there_is_named_without_the_token(url: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for address, name in ((closed, "ConnectError"), ("no-scheme", "UnsupportedProtocol")):
        with Client(address, TOKEN, max_retries=1) as client:
            with pytest.raises(Unreachable, match=f"GET /v1/model: {name}: check the URL") as failed:
                client.model()
            assert not client.ready()
            assert TOKEN not in f"{client!r}{failed.value!r}{vars(failed.value)}"
    with Client("http://me:secret@127.0.0.1:1", TOKEN) as client:
        assert "secret" not in repr(client)


def test_a_token_is_text_of_one_line():
    with scripted([USERS]) as (url, came), Client(url, f"{TOKEN}\n") as client:
        client.users()
    assert f"Bearer {TOKEN}\r\n".encode() in came[0]
    for token in ("a\nb", "tök"):
        with pytest.raises(ClientError, match="the token is no ASCII text") as refused:
            Client("http://127.0.0.1:1", token)
        assert token not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", 0.0), ("0", 0.0), (" 12 ", 12.0), ("soon", 0.0), ("-3", 0.0), ("1.5", 0.0),
        ("Thu, 01 Jan 2026 00:01:30 GMT", 90.0), ("Thu, 01 Jan 2026 00:01:30 -0000", 90.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float):
    assert retry_after_s(value, NOW) == seconds


def test_the_client_needs_neither_ray_nor_torch():
    code = "import sys, serve_apps.client; print([m for m in ('ray', 'torch', 'fastapi', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
