"""The page in a headless Chromium: nothing goes wrong, nothing sticks out, and all of it can be read in the dark."""

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from optirag_core.evaluation.reproduction.document import Document
from optirag_core.evaluation.reproduction.html import write_html
from tests.serve_apps.browsing import CONTRASTS, chromium, visit

pytestmark = pytest.mark.browser

CUT_OFF = """() => [...document.querySelectorAll("figure svg")].flatMap((plot) => {
  const box = plot.getBoundingClientRect();
  return [...plot.querySelectorAll("text")].filter((text) => {
    const own = text.getBoundingClientRect();
    return own.left < box.left - 2 || own.right > box.right + 2 || own.bottom > box.bottom + 2;
  }).map((text) => text.textContent);
});"""
"""-> texts that a plot's box cuts off."""

SCROLLING = """() => [...document.querySelectorAll(".scroll")]
  .filter((each) => each.scrollWidth > each.clientWidth)
  .map((each) => each.parentElement.id);"""
"""-> tables that are wider than the page."""


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing."""

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def url(document: Document, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("page")
    write_html(folder / "report.html", document)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/report.html"
    server.shutdown()
    server.server_close()


def test_a_laptop_a_phone_and_the_dark(url: str) -> None:
    with chromium() as browser:
        for width, scheme in ((1366, "light"), (1366, "dark"), (390, "light")):
            with visit(browser, url, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
                assert page.evaluate("document.documentElement.scrollWidth") == width
                assert page.evaluate(CUT_OFF) == []
                assert [each for each in page.evaluate(CONTRASTS) if each[2] < each[1]] == []
                if width == 1366:
                    assert page.evaluate(SCROLLING) == []
