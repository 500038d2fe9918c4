"""The page is well-formed, stands alone, escapes what it is given, and follows the reader's choice of light or dark."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from optirag_core.evaluation.reproduction.document import Document, Figure, Picture, Section, Table
from optirag_core.evaluation.reproduction.html import VARIABLES, failures, themed, write_html
from tests.evaluation.test_report import Page

HOSTILE = "<script>alert(1)</script> & \"x\" 'y' |"


@pytest.fixture(scope="module")
def html(document: Document, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("html") / "report.html"
    write_html(path, document)
    return path.read_text(encoding="utf-8")


def cells(html: str) -> list[str]:
    return [" ".join(re.sub("<[^>]+>", " ", cell).split()) for cell in re.findall(r"<td[^>]*>(.*?)</td>", html, re.S)]


def test_holds_every_text_and_figure(html: str, document: Document) -> None:
    text = Page(html).text
    for part in (document.title, *document.lead, *document.provenance.values()):
        assert part in text
    for section in document.sections:
        for part in (section.title, *section.text, *(each.caption for each in section.pictures)):
            assert part in text
        for table in section.tables:
            assert table.title in text
            assert " ".join((table.caption, *table.legend)) in text
    shown = cells(html)
    assert "0.7311 ≈ 0.7191 to 0.7431 paper 0.8511" in shown
    assert "n/a paper 0.8123" in shown
    assert "1.2 M" in shown


def test_stands_alone(html: str) -> None:
    page = Page(html)
    assert not re.search(r"https?:|@import|url\((?!#)", html)
    assert not page.all("script") + page.all("link") + page.all("img") + page.all("iframe")
    assert "default-src 'none'" in page.all("meta")[2]["content"]
    references = [v for _, found in page.tags for name, v in found.items() if name in ("src", "href", "xlink:href")]
    assert references
    assert all(each.startswith("#") for each in references)


def test_ids_are_unique_and_references_find_them(html: str) -> None:
    tags = Page(html).tags
    ids = [found["id"] for _, found in tags if "id" in found]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'(?:url\(|href=")#([\w-]+)', html) + re.findall(r'aria-\w+edby="([^"]+)"', html))
    assert wanted <= set(ids)


def test_is_accessible(html: str, document: Document) -> None:
    page = Page(html)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    plots = page.all("svg")
    assert len(plots) == len(page.all("figure")) == sum(len(each.pictures) for each in document.sections)
    assert all(each["role"] == "img" and each["aria-label"].endswith(".") for each in plots)
    assert {each["scope"] for each in page.all("th")} == {"row", "col"}
    assert all(each["tabindex"] == "0" for each in page.all("div") if each.get("class") == "scroll")


def test_a_heading_is_not_said_twice(html: str) -> None:
    assert re.findall(r"<h[23][^>]*>Leak audit</h[23]>", html) == ['<h2 id="section-audit">Leak audit</h2>']


def test_failed_checks_are_told_first(html: str, document: Document, tmp_path: Path) -> None:
    assert [(table.name, row) for table, row in failures(document)] == [("audit", "Target pairs in their own prompt")]
    top = html[: html.index("<nav")]
    assert '<a href="#table-audit">Target pairs in their own prompt</a>' in top
    assert "1 check failed:" in Page(html).text
    assert html.count('<td class=" failure">') == 1
    write_html(tmp_path / "passed.html", replace(document, sections=document.sections[1:]))
    assert "failed" not in (tmp_path / "passed.html").read_text(encoding="utf-8")


def test_every_colour_of_a_plot_is_the_pages(html: str) -> None:
    plots = "".join(re.findall(r"<svg .*?</svg>", html, re.S))
    assert not re.search(r"(?:fill|stroke)[:=] ?\"?#", plots)
    assert set(re.findall(r"var\(--(\w+)\)", plots)) <= set(VARIABLES.values())
    for name in VARIABLES.values():
        assert len(re.findall(rf"--{name}: #", html)) >= 2  # light and dark
    assert themed(Markup('<path style="fill: #1d5b99; stroke: #123456"/>')) == (
        '<path style="fill: var(--accent); stroke: #123456"/>'
    )


texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12) | st.just(HOSTILE)


@settings(max_examples=25)
@given(texts, texts, texts)
def test_awkward_texts_are_themselves(tmp_path_factory: pytest.TempPathFactory, one: str, two: str, other: str) -> None:
    table = Table("t", one, two, (other,), ((two, (Figure(0.5),)), (one, (Figure(None, text=other),))), ours=(one,))
    picture = Picture("p", two, other, Markup("<svg></svg>"))
    path = tmp_path_factory.getbasetemp() / "awkward.html"
    write_html(path, Document(one, (two,), (Section("s", other, (one,), (table,), (picture,)),), {one: two}))
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.all("script")
    assert "".join(other.split()) in "".join("".join(page.texts).split())
    assert len(page.all("svg")) == 1
