"""Prompts as texts, and items and entries with numbers for names."""

import re

from optirag_core.data.histories import Shown

from .conftest import item


def numbered(count, start=0):
    return {f"i{number}": item(f"Title {number}") for number in range(start, start + count)}


def shown(*numbers):
    return [Shown(f"i{number}", float(number % 5 + 1)) for number in numbers]


def texts(prompt, tokenizer):
    return [tokenizer.decode([*prompt.group.prefix, *suffix]).removeprefix("<s>") for suffix in prompt.group.suffixes]


def entries_of(text):
    """Titles of the shown entries, one list per user, as they stand in the prompt."""
    lists = re.findall(r"\[(.*?)\]", text)
    return [re.findall(r"(Title \d+)", entries) for entries in lists]
