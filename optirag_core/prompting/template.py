"""A prompt template: one Jinja2 file whose macros render the pieces of a prompt (paper section 9.1, tables 6-8).

    prefix = instruction [similar_heading (rank similar_user entries)*] target_heading target_user entries question
    suffix = candidate [candidate_evidence] answer_cue        entries = 'item rating, 'item rating ... ]

Pieces that are encoded on their own (`opening`, `profile`, `entry` ...) join at spaces only: every piece but the first
starts with one space, none ends with whitespace. No tokenizer that splits text at spaces has a token across such a
joint, so the ids of a piece are those it has inside the whole prompt. The white space that a macro has around such a
piece is therefore not taken over.

Values are data: they are cleaned so that no title can close a quotation, a list or the candidate's `***`, and Jinja2
never renders them a second time.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from optirag_core.config.data import PromptSettings
from optirag_core.errors import PromptError
from optirag_core.evidence.words import ItemWords

MACROS = (
    "instruction", "similar_heading", "rank", "similar_user", "target_heading", "target_user",
    "item", "rating", "question", "candidate", "answer_cue",
)  # fmt: skip
EVIDENCE_MACRO = "candidate_evidence"
"""Needed only where `evidence.prompt` is on; `show_evidence` tells the other macros whether it is."""

LAYOUT_VERSION = 2
"""Raise when the pieces, their order or `as_data` change: LLMs tuned on another layout are then refused."""
TEMPLATE_FAULTS = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError)
"""What a template of the user's own can raise."""

_STRUCTURE = str.maketrans({"'": "\u2019", "[": "(", "]": ")"})
_BLANK = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u2581]+")
"""Control characters, ends of lines, and the bar that Llama's tokenizers take for a space."""
_STARS = re.compile(r"\*{2,}")


class PromptTemplate:
    """The macros of one template file, called by name."""

    def __init__(self, settings: PromptSettings, *, evidence: bool = False) -> None:
        """
        Args:
            evidence: `evidence.prompt`; the digest leaves it to the recipes.

        Raises:
            PromptError: there is no such template, it cannot be read, or lacks a macro.
        """
        self.name = settings.template
        source = _source(settings.template)
        environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        words = {"item_fields": settings.item_fields, "yes": settings.answer_yes, "no": settings.answer_no}
        environment.globals |= words | {"show_evidence": evidence}
        try:
            self._macros = environment.from_string(source).module
        except TEMPLATE_FAULTS as error:
            raise PromptError(f"prompt template {self.name}: {error}") from None
        needed = (*MACROS, EVIDENCE_MACRO) if evidence else MACROS
        missing = [name for name in needed if not hasattr(self._macros, name)]
        if missing:
            raise PromptError(f"prompt template {self.name} has no macro {missing[0]!r}; it needs {', '.join(needed)}")
        self.digest = hashlib.sha256(f"{LAYOUT_VERSION}\n{words}\n{source}".encode()).hexdigest()

    def opening(self, *, similar: bool) -> str:
        """The first piece: the instruction and all that stands in front of the first user's profile."""
        ranked = self.render("similar_heading") + self.render("rank", 1) if similar else ""
        return (self.render("instruction") + (ranked or self.render("target_heading"))).strip()

    def profile(self, macro: str, user: Mapping[str, Any]) -> str:
        """A user up to the `[` of the history; `macro` is similar_user or target_user."""
        return _piece(self.render(macro, user))

    def entry(self, item: Mapping[str, Any]) -> str:
        """An item of a history and the quotation mark in front of it; its rating closes the quotation."""
        return _piece("'" + self.render("item", item).strip())

    def rating(self, rating: float, *, last: bool) -> str:
        """The rating behind an entry, and the comma if another entry follows."""
        return _piece(self.render("rating", rating).rstrip() + ("" if last else ","))

    def closing(self, macro: str, number: int | None = None) -> str:
        """The end of a history and what follows there: a rank, target_heading or question."""
        return _piece("]" + self.render(macro, number))

    def candidate(self, item: Mapping[str, Any]) -> str:
        """The item that is asked about."""
        return _piece(self.render("candidate", item))

    def candidate_evidence(self, words: ItemWords) -> str:
        """What others thought of the item that is asked about."""
        return _piece(self.render(EVIDENCE_MACRO, words._asdict()))

    def answer_cue(self) -> str:
        """The end of every prompt."""
        return _piece(self.render("answer_cue"))

    def render(self, macro: str, value: Any = None) -> str:
        """Text of one macro; `value` is a row (mapping), a number, or None for macros without a value.

        Raises:
            PromptError: the template names a column that the row does not have.
        """
        arguments = [] if value is None else [as_data(value)]
        try:
            return str(getattr(self._macros, macro)(*arguments))
        except TEMPLATE_FAULTS as error:
            columns = f"; the row has {', '.join(value)}" if isinstance(value, Mapping) else ""
            raise PromptError(f"prompt template {self.name}, {macro}: {error}{columns}") from None


def as_data(value: Any) -> Any:
    """Make text unable to change a prompt's structure; numbers and None pass, a row's nested values become text."""
    if isinstance(value, Mapping):
        return {key: as_data(str(item) if isinstance(item, Mapping) else item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    if isinstance(value, bytes):
        value = str(value)
    if not isinstance(value, str):
        return value
    return _STARS.sub("*", _BLANK.sub(" ", value)).translate(_STRUCTURE).strip(" *") or "untitled"


def _piece(text: str) -> str:
    return f" {text}" if (text := text.strip()) else ""


def _source(name: str) -> str:
    builtin = Path(__file__).parent / "templates" / f"{name}.jinja"
    path = builtin if builtin.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in builtin.parent.glob("*.jinja")))
        raise PromptError(f"no prompt template {name!r}: use {known}, or the path of a .jinja file")
    return path.read_text(encoding="utf-8")
