"""A prompt template: one Jinja2 file whose macros render the pieces of a prompt (paper section 9.1, tables 6-8).

    prefix = instruction [similar_heading (rank similar_user entries)*] target_heading target_user entries
    suffix = question candidate answer_cue                    entries = 'item rating, 'item rating ...]

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

from optirag_core.config import PromptSettings
from optirag_core.errors import PromptError

MACROS = (
    "instruction", "similar_heading", "rank", "similar_user", "target_heading", "target_user",
    "item", "rating", "question", "candidate", "answer_cue",
)  # fmt: skip
MACROS_WITHOUT_VALUE = ("instruction", "similar_heading", "target_heading", "question", "answer_cue")
LAYOUT_VERSION = 1
"""Raise when the order of the pieces or `as_data` changes: LLMs tuned on another layout are then refused."""
TEMPLATE_FAULTS = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError)
"""What a template of the user's own can raise."""

_STRUCTURE = str.maketrans({"'": "\u2019", "[": "(", "]": ")"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_STARS = re.compile(r"\*{2,}")


class PromptTemplate:
    """The macros of one template file, called by name."""

    def __init__(self, settings: PromptSettings) -> None:
        self.name = settings.template
        source = _source(settings.template)
        environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        words = {"item_fields": settings.item_fields, "yes": settings.answer_yes, "no": settings.answer_no}
        environment.globals |= words
        try:
            self._macros = environment.from_string(source).module
        except TEMPLATE_FAULTS as error:
            raise PromptError(f"prompt template {self.name}: {error}") from None
        missing = [name for name in MACROS if not hasattr(self._macros, name)]
        if missing:
            raise PromptError(f"prompt template {self.name} has no macro {missing[0]!r}; it needs {', '.join(MACROS)}")
        self.digest = hashlib.sha256(f"{LAYOUT_VERSION}\n{words}\n{source}".encode()).hexdigest()

    def render(self, macro: str, value: Any = None) -> str:
        """Render one piece; `value` is a row (mapping), a number, or None for pieces without a value.

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
    return _STARS.sub("*", _CONTROL.sub(" ", value)).translate(_STRUCTURE).strip(" *") or "untitled"


def _source(name: str) -> str:
    builtin = Path(__file__).parent / "templates" / f"{name}.jinja"
    path = builtin if builtin.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in builtin.parent.glob("*.jinja")))
        raise PromptError(f"no prompt template {name!r}: use {known}, or the path of a .jinja file")
    return path.read_text(encoding="utf-8")
