"""Every answer of 4xx and 5xx in one form, `ErrorAnswer`, and none that repeats what came.

`answer_errors(app)` wraps a FastAPI app: wrong fields are 422 with their paths, errors of OptiRAG are a 4xx where the
caller can act and 503 where only the operator can, anything unforeseen is 500 with an id that the log has, too.
"""

import logging
import re
import traceback
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optirag_core.errors import DataError, OptiragError, PromptError, StorageError
from serve_apps.schemas import ErrorAnswer, Problem

MAX_FIELDS = 50
"""Wrong fields that are named: a body of a thousand wrong events needs no thousand lines."""
MAX_FIELD_PART = 64
"""Characters: an unknown key is the caller's own text, which may be long."""
RETRY_AFTER_S = 2
CALLERS = (DataError, PromptError)
"""What a caller's own data brings about; everything else of OptiRAG is a matter of the operator."""

log = logging.getLogger(__name__)


def answer_errors(app: FastAPI) -> None:
    """Give the app handlers for all that its routes raise. Call it last: its middleware has to be the outermost."""
    app.exception_handler(RequestValidationError)(_wrong_fields)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(OptiragError)(_optirag)
    app.add_middleware(AnswerUnforeseen)


def error_response(
    status: int, code: str, message: str, fields: Sequence[str] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """An `ErrorAnswer` over HTTP; 429 and 503 say when to try again."""
    headers = dict(headers or {})
    if status in (429, 503):
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    answer = ErrorAnswer(problem=Problem(code=code, message=message), fields=list(fields))
    return Response(answer.model_dump_json(), status, headers, media_type="application/json")


def field_path(location: Sequence[str | int]) -> str:
    """("body", "item_ids", 3) -> body.item_ids.3"""
    return ".".join(str(part)[:MAX_FIELD_PART] for part in location)


class AnswerUnforeseen:
    """500 with an id for what nothing else has handled.

    Starlette's own handler answers and raises on, and the server then logs the exception with its message, which may
    hold a title or a prompt. The log gets the exception's type and the lines of code, never its message.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            return await self.app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001  the last resort of a server: no caller above can answer
            failed = error
        # Behind the handler: an error of what follows, be it of the log, would carry this one's message as its context.
        error_id = _logged(failed)
        if started:  # too late for another status: the server cuts the connection
            raise RuntimeError(f"error {error_id} in the middle of an answer")
        message = f"the service failed; its log has the reason under {error_id}"
        return await error_response(500, "internal", message)(scope, receive, send)


async def _wrong_fields(_: Request, error: RequestValidationError) -> Response:
    found = error.errors()
    paths = [field_path(problem["loc"]) for problem in found[:MAX_FIELDS]]
    first = f"{paths[0]}: {found[0]['msg']}" if found else "no valid request"
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    return error_response(422, "invalid", first + more, list(dict.fromkeys(paths)))


async def _http(_: Request, error: HTTPException) -> Response:
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_").replace("-", "_")
    return error_response(error.status_code, code, str(error.detail), headers=error.headers)


async def _optirag(_: Request, error: OptiragError) -> Response:
    code = re.sub(r"(?<=.)([A-Z])", r"_\1", type(error).__name__).lower()
    if isinstance(error, CALLERS):
        return error_response(422, code, str(error))
    error_id = _logged(error)
    reason = "its storage cannot be reached" if isinstance(error, StorageError) else "it cannot answer this now"
    return error_response(503, code, f"{reason}; the service's log has the reason under {error_id}")


def _logged(error: Exception) -> str:
    """The id under which the log has an error: its type and where it was raised, not its message."""
    error_id = uuid.uuid4().hex[:12]
    frames = "".join(f"\n  {at.filename}:{at.lineno} {at.name}" for at in traceback.extract_tb(error.__traceback__))
    log.error("error %s: %s%s", error_id, type(error).__name__, frames)
    return error_id
