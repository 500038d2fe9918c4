import json
import logging

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from optirag_core.errors import ArtifactMismatch, DataError, StorageError
from serve_apps.errors import MAX_FIELD_PART, MAX_FIELDS, answer_errors, field_path
from serve_apps.schemas import InteractionsRequest
from tests.serve_apps.guarded import answers, head, post, served

SECRET = "a title that nobody may log"


def _app() -> FastAPI:
    app = FastAPI()

    @app.post("/v1/interactions")
    async def interactions(asked: InteractionsRequest) -> int:
        return len(asked.events)

    @app.get("/{kind}")
    async def fails(kind: str) -> None:
        raise {
            "data": DataError("row 3: no user: send one"),
            "artifact": ArtifactMismatch(SECRET),
            "storage": StorageError(SECRET),
            "http": HTTPException(409, "it exists", {"X-Which": "one"}),
            "bug": KeyError(SECRET),
        }[kind]

    @app.get("/half/way")
    async def half_way() -> StreamingResponse:
        async def text() -> None:
            yield "begun"
            raise KeyError(SECRET)

        return StreamingResponse(text())

    answer_errors(app)
    return app


def _answer(port: int, request: bytes) -> tuple[int, str, dict]:
    [(status, text)] = answers(port, request)
    headers, _, body = text.partition("\r\n\r\n")
    return status, headers.lower(), json.loads(body)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("data", 422, "data_error"),
        ("artifact", 503, "artifact_mismatch"),
        ("storage", 503, "storage_error"),
        ("http", 409, "conflict"),
        ("bug", 500, "internal"),
    ],
)
def test_each_kind_of_error(kind: str, status: int, code: str, caplog: pytest.LogCaptureFixture) -> None:
    with served(_app()) as port:
        answered, headers, body = _answer(port, head("GET", f"/{kind}", "Connection: close"))
    assert (answered, body["problem"]["code"], body["fields"]) == (status, code, [])
    assert ("retry-after: 2" in headers) == (status == 503) and ("x-which: one" in headers) == (kind == "http")
    assert SECRET not in json.dumps(body) and SECRET not in caplog.text
    logged = [record for record in caplog.records if record.name == "serve_apps.errors"]
    assert len(logged) == (status >= 500)
    if logged:  # the answer names the entry, and the entry the place
        error_id = logged[0].args[0]
        assert error_id in body["problem"]["message"] and "test_errors.py" in logged[0].getMessage()


def test_an_answer_that_breaks_off_is_cut_and_logged_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    server = logging.getLogger("uvicorn.error")
    with served(_app()) as port:
        server.addHandler(caplog.handler)
        server.setLevel(logging.DEBUG)
        [(status, text)] = answers(port, head("GET", "/half/way", "Connection: close"))
        server.removeHandler(caplog.handler)
    assert status == 200 and not text.endswith("0\r\n\r\n")  # the caller sees that the end is missing
    assert "in the middle of an answer" in caplog.text and SECRET not in caplog.text


def test_what_the_framework_refuses_has_the_same_form() -> None:
    with served(_app()) as port:
        for request, status, code in [
            (head("GET", "/none/such", "Connection: close"), 404, "not_found"),
            (head("DELETE", "/bug", "Connection: close"), 405, "method_not_allowed"),
        ]:
            answered, _, body = _answer(port, request)
            assert (answered, body["problem"]["code"]) == (status, code)


def test_wrong_fields_are_named_up_to_a_bound() -> None:
    events = [{"event_id": "e", "user_id": "u", "item_id": "i", "rating": "much"}] * 60
    body = json.dumps({"events": events, "x" * 500: SECRET}).encode()
    with served(_app()) as port:
        status, _, answer = _answer(port, post(body, "Connection: close", path="/v1/interactions"))
    assert status == 422 and answer["fields"][0] == "body.events.0.rating" and len(answer["fields"]) == MAX_FIELDS
    assert answer["problem"]["message"].startswith("body.events.0.rating: ") and "(60 more)" in str(answer)
    assert SECRET not in json.dumps(answer)


def test_field_path() -> None:
    assert field_path(("body", "item_ids", 3)) == "body.item_ids.3"
    assert field_path(("body", "x" * 500)) == "body." + "x" * MAX_FIELD_PART
