"""What a reproduction of the paper says, before it is HTML, Markdown or Parquet.

    Document
    ├── lead           paragraphs
    ├── sections       each: paragraphs, tables of figures, pictures
    └── provenance

All texts are plain: each format escapes them. A `name` is an address, in links, files and the Parquet: letters, digits,
`-` and `_`; no two sections have the same, nor two tables or two pictures of the document.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from markupsafe import Markup

from optirag_core.evaluation.html_page import number

NOISE_SIGN = "\N{ALMOST EQUAL TO}"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Figure:
    """One cell of a table, or one point of a plot."""

    value: float | None
    low: float | None = None  # of its 95 % interval, with `high`
    high: float | None = None
    digits: int = 4  # after the point; 0 for counts
    paper: float | None = None  # the paper's figure, of another LLM and another split, in this one's unit
    is_noise: bool = False  # it cannot be told apart from the table's reference row
    text: str | None = None  # what the cell shows where it is words, or a number of another form
    is_failure: bool = False  # of a check that failed

    @property
    def shown(self) -> str:
        """Its text, or its value in fixed decimals, or `n/a`."""
        return number(self.value, self.digits) if self.text is None else self.text

    @property
    def shown_interval(self) -> str | None:
        """Both ends of the interval; None without one."""
        if self.low is None or self.high is None:
            return None
        return f"{number(self.low, self.digits)} to {number(self.high, self.digits)}"

    @property
    def shown_paper(self) -> str | None:
        """The paper's figure; None without one."""
        return None if self.paper is None else number(self.paper, self.digits)


@dataclass(frozen=True)
class Table:
    """Rows of figures."""

    name: str
    title: str
    caption: str
    columns: tuple[str, ...]  # of the figures; the rows' own names have no column here
    rows: tuple[tuple[str, tuple[Figure, ...]], ...]  # name of the row, one figure per column
    row_title: str = ""  # head of the rows' names, e.g. "Model"
    ours: tuple[str, ...] = ()  # names of the rows that stand out
    reference: str | None = None  # name of the row that `is_noise` compares with

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a row has not one figure per column.
        """
        for name, figures in self.rows:
            if len(figures) != len(self.columns):
                raise ValueError(f"table {self.name}, row {name}: {len(figures)} figures, {len(self.columns)} columns")

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Those of all rows."""
        return tuple(figure for _, figures in self.rows for figure in figures)

    def is_words(self, column: int) -> bool:
        """Whether a column holds no number; words stand on the left."""
        figures = [row[column] for _, row in self.rows]
        return any(each.text is not None for each in figures) and all(each.value is None for each in figures)

    @property
    def legend(self) -> tuple[str, ...]:
        """What the marks in its cells mean, as sentences."""
        figures, sentences = self.figures, []
        if any(each.shown_interval for each in figures):
            sentences.append("Small: the 95 % interval.")
        if any(each.paper is not None for each in figures):
            sentences.append("After 'paper': its own figure, of another LLM and another split.")
        if any(each.is_noise for each in figures):
            other = "the reference" if self.reference is None else self.reference
            sentences.append(f"{NOISE_SIGN}: the difference from {other} is inside the noise.")
        return tuple(sentences)


@dataclass(frozen=True)
class Picture:
    """One plot with its words."""

    name: str
    title: str
    caption: str
    svg: Markup  # of `plots.svg`
    numbers: Table | None = None  # what it draws


@dataclass(frozen=True)
class Section:
    """One table or figure of the paper, or a question of our own."""

    name: str
    title: str
    text: tuple[str, ...] = ()  # paragraphs
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def all_tables(self) -> tuple[Table, ...]:
        """Its own, and those of its pictures."""
        return self.tables + tuple(picture.numbers for picture in self.pictures if picture.numbers)


@dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    lead: tuple[str, ...]  # paragraphs: data set, split, label rule, what the LLM is and what it says nothing about
    sections: tuple[Section, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a name is none, or two parts have the same.
        """
        for kind in (
            self.sections,
            [table for section in self.sections for table in section.all_tables],
            [picture for section in self.sections for picture in section.pictures],
        ):
            counts = Counter(part.name for part in kind)
            wrong = [name for name, count in counts.items() if count > 1 or not NAME.fullmatch(name)]
            if wrong:
                raise ValueError(f"names of sections, tables or pictures: twice, or not {NAME.pattern}: {wrong}")
