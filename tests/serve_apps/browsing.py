"""A headless Chromium on the page, which fails a test for any trouble that the page has."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("playwright", reason="no playwright: pip install playwright")
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, sync_playwright

CHROMIUM = shutil.which("chromium")
TIMEOUT_MS = 8_000
MAX_TABS = 150
REPORT_VIOLATIONS = """addEventListener("securitypolicyviolation", (event) =>
  console.error("CSP", event.violatedDirective, event.blockedURI));"""


@contextmanager
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no program chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # Its sandbox wants rights that root in a container lacks; it opens nothing but the tests' own page.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, url: str, *, refusals: bool = False, script: str = "", **context: Any) -> Iterator[Page]:
    """Yields the page at a URL of `http://host:port/...`; nothing may go wrong on it, nor go elsewhere.

    Args:
        refusals: the service refuses something, of which the browser's console tells.
        script: runs before those of the page.
        context: of `browser.new_context`.
    """
    troubles = []

    def console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not (refusals and "Failed to load resource" in message.text):
            troubles.append(message.text)

    def request(asked: Request) -> None:
        if _host(asked.url) != _host(url):
            troubles.append(f"another origin: {asked.url}")

    opened = browser.new_context(**{"reduced_motion": "reduce", **context})  # a test waits for no animation
    opened.set_default_timeout(TIMEOUT_MS)
    opened.add_init_script(REPORT_VIOLATIONS + script)
    page = opened.new_page()
    page.on("console", console)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", request)
    page.goto(url)
    yield page
    opened.close()
    assert troubles == []


def _host(url: str) -> str:
    """Without credentials, which are no part of an origin."""
    return urlsplit(url).netloc.rpartition("@")[2]


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the focus is there, and see that it shows."""
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        if target.evaluate("target => target === document.activeElement"):
            assert target.evaluate("target => getComputedStyle(target).outlineStyle") == "solid"
            return
    pytest.fail(f"{MAX_TABS} times Tab do not reach {target}")


CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => channels(colour).slice(0, 3)
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const [red, green, blue, alpha = 1] = channels(getComputedStyle(at).backgroundColor);
      if (alpha > 0) return `rgb(${red}, ${green}, ${blue})`;
    }
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((left, right) => left - right);
    return (high + 0.05) / (low + 0.05);
  };
  const said = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  const found = [];
  for (const node of document.body.querySelectorAll("*")) {
    if (!node.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(node);
    if (said(node)) found.push([node.className || node.localName, 4.5, contrast(style.color, ground(node))]);
    if (/bar-(evidence|text)|similarity-part/.test(node.getAttribute("class")))
      found.push([node.getAttribute("class"), 3, contrast(style.fill, ground(node))]);
    if (/curve-(run|beyond)/.test(node.getAttribute("class")))
      found.push([node.getAttribute("class"), 3, contrast(style.stroke, ground(node))]);
  }
  return found;
}"""
"""-> [class, contrast needed, contrast found] of every text, bar and curve (WCAG 2.2, 1.4.3 and 1.4.11)."""
