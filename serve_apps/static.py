"""The page's files as routes. A fixed table: no path of a request reaches the file system."""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).with_name("page")
INDEX = "index.html"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = (
    INDEX, "icon.svg",
    "theme.css", "layout.css", "combobox.css", "person.css", "candidate.css",
    "app.js", "candidate.js", "combobox.js", "contributions.js", "curve.js", "element.js", "event_id.js", "layers.js",
    "model.js", "notice.js", "numbers.js", "person.js", "ranking.js", "rating.js", "service.js",
)  # fmt: skip

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, and asked for again by its ETag: an update shows at the next load
}


def page_routes() -> list[Route]:
    """`/`, and `/page/<file>` of every file that it needs."""
    return [Route("/" if name == INDEX else f"/page/{name}", _answers(FOLDER / name)) for name in FILES]


def _answers(file: Path) -> Callable[[Request], Awaitable[Response]]:
    """The file as it is now: it is read once."""
    content, media_type = file.read_bytes(), MEDIA_TYPES[file.suffix]
    headers = {**HEADERS, "ETag": f'"{sha256(content).hexdigest()[:32]}"'}

    async def answer(request: Request) -> Response:
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    return answer
