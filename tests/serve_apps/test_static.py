"""The page's files over HTTP."""

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette

from serve_apps.static import FILES, FOLDER, page_routes
from tests.serve_apps.guarded import answers, head, served


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(Starlette(routes=page_routes())) as port:
        yield port


def got(port: int, path: str, *lines: str) -> tuple[int, str]:
    [answer] = answers(port, head("GET", path, "Connection: close", *lines, token=None))
    return answer


def test_every_file_of_the_folder_is_in_the_table() -> None:
    assert sorted(FILES) == sorted(file.name for file in FOLDER.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_every_file_comes_with_strict_headers(port: int, name: str) -> None:
    status, answer = got(port, "/" if name == "index.html" else f"/page/{name}")
    assert status == 200
    assert "content-security-policy: default-src 'self';" in answer and "unsafe" not in answer.partition("\r\n\r\n")[0]
    assert "x-content-type-options: nosniff" in answer and "referrer-policy: no-referrer" in answer
    assert answer.endswith((FOLDER / name).read_text(encoding="utf-8"))


def test_what_the_browser_has_is_not_sent_again(port: int) -> None:
    _, answer = got(port, "/")
    [tag] = [line.partition(": ")[2] for line in answer.splitlines() if line.startswith("etag")]
    status, again = got(port, "/", f"If-None-Match: {tag}")
    assert status == 304 and again.endswith("\r\n\r\n")


@pytest.mark.parametrize(
    "path", ["/page/", "/page/../static.py", "/page/%2e%2e/static.py", "/page/index.html", "/static.py"]
)
def test_no_other_path_is_a_file(port: int, path: str) -> None:
    assert got(port, path)[0] == 404
