"""The document as one HTML file that needs nothing else, neither beside it nor from a network; light and dark."""

import re
from pathlib import Path

from markupsafe import Markup

from optirag_core.evaluation.html_page import html_page
from optirag_core.evaluation.plots import INK, MODEL, MUTED, OTHER, RULE
from optirag_core.evaluation.reproduction.document import NOISE_SIGN, Document, Table
from optirag_core.evaluation.reproduction.plots.marks import GOLD, GREEN, PAPER, PURPLE

TEMPLATE = "reproduction/report.html.jinja"

VARIABLES = {
    INK: "ink", MUTED: "muted", RULE: "rule", MODEL: "accent", PAPER: "paper",
    OTHER: "rust", GREEN: "green", PURPLE: "purple", GOLD: "gold",
}  # fmt: skip
"""Colour of a plot -> variable of the page's style, which has another value in the dark."""


def write_html(path: Path, document: Document) -> None:
    """Write the file, with all plots in it."""
    path.write_text(
        html_page(
            TEMPLATE,
            document=document,
            failures=failures(document),
            noise_sign=NOISE_SIGN,
            themed=themed,
        ),
        encoding="utf-8",
    )


def themed(svg: Markup) -> Markup:
    """A plot whose colours are the page's."""
    styled = re.sub(r' fill="(#[0-9a-f]{6})"', r' style="fill: \1"', str(svg))  # of hatches
    return Markup(re.sub(r"(?<=fill: |roke: )#[0-9a-f]{6}", _variable, styled))


def _variable(found: re.Match[str]) -> str:
    return f"var(--{VARIABLES[found[0]]})" if found[0] in VARIABLES else found[0]


def failures(document: Document) -> list[tuple[Table, str]]:
    """Table and row of every check that failed."""
    return [
        (table, row)
        for section in document.sections
        for table in section.tables
        for row, figures in table.rows
        if any(figure.is_failure for figure in figures)
    ]
