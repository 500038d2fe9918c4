"""What a picture shows."""

import html
import re

from optirag_core.evaluation.reproduction.document import Picture


def texts(picture: Picture | None) -> list[str]:
    """The texts in it, without those for readers who do not see it."""
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>(.*?)</text>", picture.svg, re.DOTALL)]
