import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optirag_core.data.text import MAX_CHARACTERS, clean_text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Clara Callan", "Clara Callan"),
        ("La casa de los espÃ\xadritus", "La casa de los espíritus"),  # UTF-8 read as Latin-1
        ("Antoine de Saint-ExupÃ©ry", "Antoine de Saint-Exupéry"),
        ("John Wiley &amp Sons Inc", "John Wiley & Sons Inc"),  # as the file has it: no semicolon
        ("Simon &amp; Schuster", "Simon & Schuster"),
        ("Maggiano&#39;s Gift Card", "Maggiano's Gift Card"),
        ("Q&amp;amp;A", "Q&A"),
        ("a &lt;b&gt;bold&lt;/b&gt; title", "a bold title"),
        ('<span class="a-size-large">Gift<br/>Card</span>', "Gift Card"),
        ("<script>var x = '<b>';</script>Card<!-- note -->", "Card"),
        ("AT&T, R&D and copyright &copyright", "AT&T, R&D and copyright &copyright"),
        ("I <3 You, 1 < 2 > 0", "I <3 You, 1 < 2 > 0"),
        ("two\nlines\r\nand\ta tab\x00\x1b", "two lines and a tab"),
        ("line\u2028separator\u00a0and\u3000spaces", "line separator and spaces"),
        ("right\u202eto left\ufeff and zero\u200bwidth", "rightto left and zerowidth"),
        ("e\u0301t\u00e9", "été"),
        (r"a \"quoted\" word, Dick\'s, C:\ drive", 'a "quoted" word, Dick\'s, C: drive'),
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("   ", ""),
    ],
)
def test_known_damage(raw, clean):
    assert clean_text(raw) == clean


def test_length_is_capped_without_a_trailing_space():
    assert len(clean_text("x" * 5000)) == MAX_CHARACTERS
    assert clean_text("x" * (MAX_CHARACTERS - 1) + " tail") == "x" * (MAX_CHARACTERS - 1)


@settings(deadline=None)
@given(st.text() | st.text(alphabet="&amp;lt#39<>/b\\\"' \n\rÃ\xad"))
def test_result_is_one_clean_line(raw):
    clean = clean_text(raw)
    assert clean == " ".join(clean.split())
    assert "\\" not in clean
    assert len(clean) <= MAX_CHARACTERS
    assert unicodedata.is_normalized("NFC", clean)
    assert not any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in clean)
    clean.encode("utf-8")


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"], exclude_characters="&<\\")))
def test_plain_ascii_only_loses_surplus_spaces(raw):
    assert clean_text(raw) == " ".join(raw.split())[:MAX_CHARACTERS].rstrip()
