"""A template of this folder as one HTML file that needs nothing else, neither beside it nor from a network."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def html_page(template: str, **values: Any) -> str:
    """Fill in a template, with every value escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["count"] = "{:,}".format
    return environment.get_template(template).render(**values)


def number(value: float | None, digits: int = 4) -> str:
    """Fixed decimals, without a sign before a zero, and `n/a` for what does not exist."""
    return "n/a" if value is None else f"{value:z,.{digits}f}"
