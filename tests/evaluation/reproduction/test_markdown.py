"""The Markdown holds the same tables, which read back as their numbers, and its pictures are files that exist."""

import html
import re
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from optirag_core.evaluation.reproduction.document import Document, Figure, Section, Table
from optirag_core.evaluation.reproduction.markdown import escaped, markdown, paragraph, write_markdown


def rows(text: str) -> list[list[str]]:
    """Cells of all tables, without heads; GitHub splits at every bar that is not escaped."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = [at - 1 for at, line in enumerate(lines) if line.startswith("| ---")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for at, line in enumerate(lines)
        if at not in heads and at - 1 not in heads
    ]


def read(cell: str) -> tuple[float, float | None, float | None, float | None, bool]:
    """value, low, high, paper, noise"""
    low, high = (re.findall(r"<sub>(\S+) to (\S+)</sub>", cell) or [(None, None)])[0]
    paper = (re.findall(r"<sub>paper (\S+)</sub>", cell) or [None])[0]
    value = re.match(r"[\d.,]+", cell)[0]
    value, low, high, paper = (each and float(each.replace(",", "")) for each in (value, low, high, paper))
    return value, low, high, paper, "≈" in cell


def test_tables_read_back_as_their_numbers(document: Document) -> None:
    (table,) = [table for section in document.sections for table in section.tables if table.name == "table2"]
    section = Section("s", "S", tables=(table,))
    found = rows(markdown(Document("D", (), (section,)), "pictures"))
    assert [row[0].strip("*") for row in found] == [name for name, _ in table.rows]
    assert found[-1][0] == "**OptiRAG-Rec**"
    for row, (_, figures) in zip(found, table.rows, strict=True):
        for cell, figure in zip(row[1:4], figures[:3], strict=True):
            ends = (figure.value, figure.low, figure.high, figure.paper)
            assert read(cell) == (*(each and round(each, 4) for each in ends), figure.is_noise)
        assert row[5:] == ["1.2 M", figures[5].text]


def test_marks_of_cells() -> None:
    cells = (Figure(3.0, digits=0, is_failure=True), Figure(None), Figure(0.5, 0.4, 0.6, 2, 0.9, True))
    table = Table("t", "T", "Caption.", ("a", "b", "c"), (("x", cells),))
    text = markdown(Document("D", (), (Section("s", "S", tables=(table,)),)), "pictures")
    assert rows(text) == [
        ["x", "**failed: 3**", "n/a", "0.50 ≈<br><sub>0.40 to 0.60</sub><br><sub>paper 0.90</sub>"],
    ]
    assert " ".join(("Caption.", *table.legend)) in text


def test_pictures_are_files_beside_it(document: Document, tmp_path: Path) -> None:
    path = tmp_path / "a report.md"
    write_markdown(path, document)
    text = path.read_text(encoding="utf-8")
    links = [unquote(each) for each in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)]
    pictures = [picture for section in document.sections for picture in section.pictures]
    assert links == [f"a report/{picture.name}.svg" for picture in pictures]
    for link, picture in zip(links, pictures, strict=True):
        root = ElementTree.parse(tmp_path / link).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert picture.caption in text
    assert markdown(document, "a report") == text


def test_without_pictures_there_is_no_folder(tmp_path: Path) -> None:
    write_markdown(tmp_path / "r.md", Document("D", (), ()))
    assert [each.name for each in tmp_path.iterdir()] == ["r.md"]


def test_what_markdown_would_read_is_written_out() -> None:
    assert escaped("a|b <c>\n`d` *e* snake_case _f_") == (
        "a&#124;b &#60;c&#62; &#96;d&#96; &#42;e&#42; snake_case &#95;f&#95;"
    )
    assert [paragraph(text) for text in ("- a", "1. a", "2) a", "---", "+", "0.5 is a", "-5 is a")] == [
        "&#45; a", "1&#46; a", "2&#41; a", "&#45;--", "&#43;", "0.5 is a", "-5 is a",
    ]  # fmt: skip


texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20) | st.text(
    "|\\<>&#`*_[]~$\n -1.", max_size=12
)


@given(texts, texts, texts)
def test_awkward_texts_are_themselves(row: str, column: str, text: str) -> None:
    table = Table("t", "T", "", (column,), ((row, (Figure(0.25),)), ("words", (Figure(None, text=text),))), ours=(row,))
    found = rows(markdown(Document("D", (), (Section("s", text, (text,), (table,)),)), "pictures"))
    name = html.unescape(found[0][0])
    assert name == f"**{' '.join(row.split())}**"
    assert found[0][1] == "0.2500"
    assert html.unescape(found[1][1]) == " ".join(text.split())
    assert len(found) == 2
    assert not set(escaped(text)) & set("|\\<>`*[]~$\n")
