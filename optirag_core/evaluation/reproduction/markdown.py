"""The document as GitHub Markdown, its pictures as SVG files beside it."""

import re
from pathlib import Path
from urllib.parse import quote

from optirag_core.evaluation.plots import SIZE_IN
from optirag_core.evaluation.reproduction.document import NOISE_SIGN, Document, Figure, Picture, Section, Table
from optirag_core.evaluation.reproduction.plots.marks import PAPER

SPECIAL = re.compile(r"[\\`*\[\]<>|~$&#]|(?<!\w)_|_(?!\w)")
"""What Markdown reads as more than itself, anywhere in a line. Entities in its place hold in a table's cell too."""

LEADING = re.compile(r"^(?:(\d+)[.)]|[-+])(?=[- ]|$)")
"""What makes a line a list or a rule."""


def write_markdown(path: Path, document: Document) -> None:
    """Write the file, and its pictures into a folder beside it that has its name without the ending."""
    folder = path.with_suffix("")
    pictures = [picture for section in document.sections for picture in section.pictures]
    if pictures:
        folder.mkdir(exist_ok=True)
    for picture in pictures:
        (folder / f"{picture.name}.svg").write_text(_svg_file(picture), encoding="utf-8")
    path.write_text(markdown(document, folder.name), encoding="utf-8")


def markdown(document: Document, folder: str) -> str:
    """The text.

    Args:
        folder: of the pictures, beside the text.
    """
    blocks = [f"# {escaped(document.title)}", *map(paragraph, document.lead)]
    for section in document.sections:
        blocks += _section(section, folder)
    if document.provenance:
        rows = [f"| {escaped(name)} | {escaped(value)} |" for name, value in document.provenance.items()]
        blocks += ["## Provenance", "\n".join(["| What | Value |", "|---|---|", *rows])]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """A text as itself, on one line."""
    return SPECIAL.sub(lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def paragraph(text: str) -> str:
    """A text as itself, where its beginning could make it a list or a rule."""
    return LEADING.sub(lambda found: f"{found[1] or ''}&#{ord(found[0][-1])};", escaped(text))


def _section(section: Section, folder: str) -> list[str]:
    blocks = [f"## {escaped(section.title)}", *map(paragraph, section.text)]
    for table in section.tables:
        if table.title != section.title:
            blocks.append(f"### {escaped(table.title)}")
        blocks += [*_caption(table), _grid(table)]
    for picture in section.pictures:
        link = f"![{escaped(picture.title)}]({quote(folder)}/{picture.name}.svg)"
        blocks += [f"### {escaped(picture.title)}", link, paragraph(picture.caption)]
        if picture.numbers:
            blocks += ['<details markdown="1"><summary>Its numbers</summary>', _grid(picture.numbers), "</details>"]
    return blocks


def _caption(table: Table) -> list[str]:
    text = " ".join(filter(None, (table.caption, *table.legend)))
    return [paragraph(text)] if text else []


def _grid(table: Table) -> str:
    head = [escaped(table.row_title), *map(escaped, table.columns)]
    sides = ["---" if table.is_words(column) else "---:" for column in range(len(table.columns))]
    lines = [head, ["---", *sides]]
    for name, figures in table.rows:
        title = f"**{escaped(name)}**" if name in table.ours else escaped(name)
        lines.append([title, *map(_cell, figures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(figure: Figure) -> str:
    text = escaped(figure.shown)
    if figure.is_failure:
        text = f"**failed: {text}**"
    if figure.is_noise:
        text += f" {NOISE_SIGN}"
    if figure.shown_interval:
        text += f"<br><sub>{figure.shown_interval}</sub>"
    if figure.shown_paper:
        text += f"<br><sub>paper {figure.shown_paper}</sub>"
    return text


def _svg_file(picture: Picture) -> str:
    """The plot as a document of its own, on a ground that suits its colours where a page is dark."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    style = f"<style>svg {{ background: {PAPER}; }} * {{ stroke-linejoin: round; stroke-linecap: butt; }}</style>"
    width = round(130 * SIZE_IN[0])
    return re.sub(r"<svg ([^>]*)>", rf'<svg {spaces} width="{width}" \1>{style}', str(picture.svg), count=1) + "\n"
