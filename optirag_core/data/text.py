"""Titles, names and places as publishers write them, made readable: one line of clean Unicode."""

import html
import re
import unicodedata

from ftfy import TextFixerConfig, fix_text

MAX_CHARACTERS = 512  # longest real BookCrossing title: 256; beyond twice that it is page content, not a title

_FTFY = TextFixerConfig(
    unescape_html=False,  # done here, also without the closing semicolon
    uncurl_quotes=False,  # the rest would change characters that are right
    fix_latin_ligatures=False,
    fix_character_width=False,
    normalization="NFC",
    explain=False,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});|&amp\b")
_TAG = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|</?[a-zA-Z][^<>]*>", re.DOTALL | re.IGNORECASE)
_PLAIN = re.compile(r"[ !\"#$%'-;=?-\[\]-~]*")  # printable ASCII without & < > and backslash


def clean_text(raw: str) -> str:
    """Repair and flatten a text: encoding, entities, tags, control characters, backslashes, spaces, length.

    The result has no line breaks, no control or unassigned characters, no backslashes, single spaces, is in NFC and has
    at most `MAX_CHARACTERS` characters. It may be empty.
    """
    if not _PLAIN.fullmatch(raw):
        raw = _repair(raw)
    text = " ".join(raw.split())
    return text[:MAX_CHARACTERS].rstrip()


def _repair(raw: str) -> str:
    text = raw.replace('\\"', '"').replace("\\'", "'").replace("\\", " ")
    text = _unmark(fix_text(text, _FTFY))
    text = "".join(_printable(character) for character in text).replace("\\", " ")
    return unicodedata.normalize("NFC", text)


def _unmark(text: str) -> str:
    """Entities first, since they may spell tags (`&lt;br&gt;`); until nothing changes, since they may spell entities.

    Every change shortens the text, so this ends.
    """
    previous = None
    while text != previous:
        previous = text
        text = _TAG.sub(" ", _ENTITY.sub(lambda match: html.unescape(match[0]), text))
    return text


def _printable(character: str) -> str:
    """Line breaks, controls and every kind of space become a space; invisible and unassigned characters are removed."""
    category = unicodedata.category(character)
    if category in {"Cc", "Zl", "Zp", "Zs"}:
        return " "
    return "" if category.startswith("C") else character
