"""The page in a headless Chromium, on a real server."""

from collections.abc import Iterator
from dataclasses import fields

import pytest

from tests.serve_apps.browsing import CONTRASTS, chromium, tab_to, visit

from playwright.sync_api import Browser, Page, expect  # isort: skip  browsing skips where there is none

from serve_apps.auth import RequireToken, Tokens
from tests.serve_apps.guarded import HASHES, TOKEN, served
from tests.serve_apps.page_service import LONG, MARKUP, OVERRIDE, RIGHT_TO_LEFT, PageService, page_app

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def _served() -> Iterator[tuple[PageService, str]]:
    service = PageService()
    with served(page_app(service)) as port:
        yield service, f"http://127.0.0.1:{port}/"


@pytest.fixture
def service(_served: tuple[PageService, str]) -> PageService:
    """As new."""
    fresh = PageService()
    for one in fields(fresh):
        setattr(_served[0], one.name, getattr(fresh, one.name))
    return _served[0]


@pytest.fixture
def url(_served: tuple[PageService, str], service: PageService) -> str:
    return _served[1]


def order(page: Page) -> list[str]:
    return page.locator(".candidate .title").all_inner_texts()


def expected(service: PageService, user_id: str) -> list[str]:
    return [item.title for item in service.recommended(user_id, 20).items]


def shown(page: Page) -> None:
    """Waits until a ranking is there."""
    expect(page.locator("#news")).to_contain_text("ranked")


def rate(page: Page, title: str, value: int) -> None:
    page.get_by_role("button", name=f"Rate {title}").click()
    page.get_by_role("button", name=f"Rate {value} of 5").locator("visible=true").click()


def test_the_keyboard_alone_is_enough(browser: Browser, url: str, service: PageService) -> None:
    with visit(browser, url) as page:
        tab_to(page, page.get_by_role("combobox", name="User"))
        page.keyboard.type("an")
        expect(page.get_by_role("option")).to_have_text(["anna", "anton"])
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("option", name="anna")).to_have_attribute("aria-selected", "true")
        page.keyboard.press("Enter")
        shown(page)
        before = order(page)
        assert before == expected(service, "anna")
        tab_to(page, page.get_by_role("button", name="Solaris", exact=True))
        page.keyboard.press("Enter")
        panel = page.locator(".candidate", has_text="Solaris").locator(".panel")
        expect(panel.locator("tr.stopped")).to_have_count(1)
        expect(panel.locator(".stop-sentence")).to_contain_text("stopped it")
        tab_to(page, panel.get_by_role("button", name="Rate 5 of 5"))
        page.keyboard.press("Enter")
        expect(page.locator("#news")).to_contain_text("Solaris")
        after = order(page)
        assert after == expected(service, "anna") != before
        assert len(service.event_ids) == 1
        expect(page.locator(".history .title").first).to_have_text("Solaris")
        title = next(title for title in after if after.index(title) != before.index(title))
        ranks = f"{before.index(title) + 1}→{after.index(title) + 1}"
        expect(page.locator(".candidate", has_text=title).locator(".moved")).to_contain_text(ranks)


@pytest.mark.parametrize("width", [360, 1440])
def test_nothing_is_wider_than_the_window(browser: Browser, url: str, width: int) -> None:
    with visit(browser, url + "#anna", viewport={"width": width, "height": 900}) as page:
        shown(page)
        page.locator("#model summary").click()
        page.evaluate("for (const button of document.querySelectorAll('.title-button')) button.click()")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert (
            page.evaluate("""[...document.querySelectorAll("main *, header *")].filter((node) => {
            const box = node.getBoundingClientRect();
            return node.checkVisibility() && !node.closest(".unseen") && (box.right > innerWidth || box.left < 0);
        }).map((node) => node.outerHTML.slice(0, 200))""")
            == []
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_suffices_in_both_schemes(browser: Browser, url: str, service: PageService, scheme: str) -> None:
    service.refusals = [(503, {"Retry-After": "60"})]
    with visit(browser, url + "#new", color_scheme=scheme, refusals=True) as page:
        expect(page.locator(".waiting")).to_be_visible()
        contrasts = page.evaluate(CONTRASTS)
        page.get_by_role("button", name="Give up").click()
        expect(page.locator(".problem")).to_be_visible()
        contrasts += page.evaluate(CONTRASTS)
        page.goto(url + "#anna")
        page.reload()
        shown(page)
        rate(page, "Solaris", 5)
        expect(page.locator("#news")).to_contain_text("Solaris")
        page.locator("#model summary").click()
        page.locator(".title-button").first.click()
        contrasts += page.evaluate(CONTRASTS)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(ground) < 128) == (scheme == "dark")
    assert len(contrasts) > 100
    assert [found for found in contrasts if found[2] < found[1]] == []


def test_titles_are_text(browser: Browser, url: str, service: PageService) -> None:
    with visit(browser, url + "#anton") as page:
        shown(page)
        assert {MARKUP, RIGHT_TO_LEFT, LONG, OVERRIDE} <= set(order(page))
        rate(page, MARKUP, 4)
        expect(page.locator("#news")).to_contain_text(MARKUP)
        expect(page.locator(".history .title").first).to_have_text(MARKUP)
        assert page.locator("img, b").count() == 0


def test_a_new_user_is_cold_until_the_first_rating(browser: Browser, url: str, service: PageService) -> None:
    with visit(browser, url, script="crypto.randomUUID = undefined") as page:
        page.get_by_role("button", name="New user").click()
        expect(page.locator("#cold-start")).to_contain_text("Cold start")
        shown(page)
        rate(page, "Kindred", 5)
        expect(page.locator("#news")).to_contain_text("No cold start any more: 4 similar users.")
        expect(page.locator("#cold-start")).to_be_hidden()
        [user_id] = service.histories.keys() - {"anna", "anton"}
        assert page.locator("#user-id").inner_text() == user_id
        assert order(page) == expected(service, user_id)
        assert len(service.event_ids[0]) == 32


def test_a_person_makes_a_list_of_their_own(browser: Browser, url: str, service: PageService) -> None:
    with visit(browser, url + "#anna") as page:
        shown(page)
        assert "Pedro Páramo" not in order(page)
        page.get_by_role("combobox", name="Add an item").fill("pedro")
        page.get_by_role("option", name="Pedro Páramo").click()
        expect(page.locator("#news")).to_contain_text("Pedro Páramo⁩ added")
        expect(page.locator(".candidate", has_text="Pedro Páramo").locator(".moved")).to_have_text("new")
        assert len(order(page)) == 21
        page.get_by_role("button", name="Solaris", exact=True).click()
        page.get_by_role("button", name="Take off the list").locator("visible=true").click()
        expect(page.locator("#news")).to_contain_text("Solaris⁩ taken off")
        assert len(order(page)) == 20 and "Solaris" not in order(page)
        rate(page, "Pedro Páramo", 1)
        expect(page.locator("#news")).to_contain_text("rated 1")
        assert "Pedro Páramo" in order(page), "one's own list stays as it is"
        page.get_by_role("button", name="Recommend again").click()
        expect(page.locator("#news")).to_contain_text("Recommended anew")
        assert order(page) == expected(service, "anna")


def test_a_busy_service_is_asked_again_in_sight(browser: Browser, url: str, service: PageService) -> None:
    service.refusals = [(429, {"Retry-After": "1"}), (503, {"Retry-After": "600"})]
    service.policy = "overload"
    with visit(browser, url + "#anna", refusals=True) as page:
        expect(page.locator(".waiting")).to_contain_text("busy (429), try 1 of 6: trying again in 1 s")
        expect(page.locator(".waiting")).to_contain_text("busy (503), try 2 of 6: trying again in 600 s")
        page.get_by_role("button", name="Try now").click()
        shown(page)
        assert page.locator(".waiting").count() == 0
        expect(page.locator("#facts")).to_contain_text("overload")
        service.refusals = [(401, {})]
        page.get_by_role("button", name="Recommend again").click()
        expect(page.locator(".problem")).to_contain_text("401: a valid token is needed")


def test_ratings_in_quick_succession_are_all_stored_in_their_order(
    browser: Browser, url: str, service: PageService
) -> None:
    with visit(browser, url + "#anton", refusals=True) as page:
        shown(page)
        titles = order(page)[:5]
        service.refusals = [(503, {"Retry-After": "1"})]  # of the first: the others wait for it
        page.evaluate("""() => [...document.querySelectorAll(".candidate")].slice(0, 5)
            .forEach((row) => row.querySelector("[data-control=rate-4]").click())""")
        expect(page.locator("#history .title")).to_have_text([*reversed(titles), "The Dispossessed"])
        assert len(set(service.event_ids)) == 5
        expect(page.locator("#news")).to_contain_text("rated 4")
        assert order(page) == expected(service, "anton")


def test_motion_is_reduced_where_that_is_asked(browser: Browser, url: str, service: PageService) -> None:
    count = "window.moves = 0; const real = Element.prototype.animate;"
    count += "Element.prototype.animate = function (...given) { moves += 1; return real.apply(this, given) }"
    moves = {}
    for motion in ("reduce", "no-preference"):
        with visit(browser, url + "#anton", script=count, reduced_motion=motion) as page:
            shown(page)
            rate(page, "Solaris", 5 if motion == "reduce" else 1)
            expect(page.locator("#news")).to_contain_text("Solaris")
            moves[motion] = page.evaluate("moves")
            service.histories = PageService().histories
    assert moves["reduce"] == 0 < moves["no-preference"]


def test_the_browsers_own_credentials_open_everything(browser: Browser) -> None:
    app = RequireToken(page_app(PageService()), Tokens(hashes=HASHES))
    with (
        served(app) as port,
        visit(browser, f"http://anybody:{TOKEN}@127.0.0.1:{port}/#anna") as page,
    ):
        shown(page)
        rate(page, "Solaris", 5)
        expect(page.locator("#news")).to_contain_text("stored")
