"""Counts in words."""

from math import log, log1p

import numpy as np
import pytest

from optirag_core.evidence.smoothing import feature_names
from optirag_core.evidence.words import ALL_WORDS, ItemWords, item_words

NAMES = feature_names(["author"])


def features(share, count):
    row = np.zeros((1, len(NAMES)), np.float32)
    row[0, NAMES.index("item: liked")] = log(share / (1 - share))
    row[0, NAMES.index("item: count")] = log1p(count)
    return row


@pytest.mark.parametrize(
    ("share", "count", "words"),
    [
        (0.6, 0, ("6 of 10", "no")),
        (0.04, 1, ("0 of 10", "few")),
        (0.96, 2, ("10 of 10", "few")),
        (0.74, 3, ("7 of 10", "some")),
        (0.76, 9, ("8 of 10", "some")),
        (0.5, 10, ("5 of 10", "many")),
        (0.5, 49, ("5 of 10", "many")),
        (0.5, 50, ("5 of 10", "countless")),
        (0.5, 1_000_000, ("5 of 10", "countless")),
    ],
)
def test_by_hand(share, count, words):
    assert item_words(NAMES, features(share, count)) == [words]


def test_there_are_55_of_them_for_rows_of_any_number():
    assert len(set(ALL_WORDS)) == 55
    rows = np.concatenate([features(0.6, 0), features(0.5, 12)])
    assert item_words(NAMES, rows) == [ItemWords("6 of 10", "no"), ItemWords("5 of 10", "many")]
    assert item_words(NAMES, rows[:0]) == []
