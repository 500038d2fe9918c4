"""Evidence in a few words, as prompts say it: 55 different ones, so that each is encoded once.

Shape legend: `n` pairs, `F` features.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

NUMBERS = ("no", "few", "some", "many", "countless")
BOUNDS = (1, 3, 10, 50)
"""Ratings from which on the next word is said. On BookCrossing 7, 12, 28, 33 and 20 % of the test pairs
have each word."""


class ItemWords(NamedTuple):
    """What is said of a candidate."""

    liked_share: str  # of those who rated it, smoothed, e.g. "7 of 10"
    num_ratings: str  # one of NUMBERS


ALL_WORDS = tuple(ItemWords(f"{tenths} of 10", number) for tenths, number in product(range(11), NUMBERS))


def item_words(names: Sequence[str], features: np.ndarray) -> list[ItemWords]:
    """
    Args:
        names: of the features.
        features: [n, F] of `Evidence.features`; without the pair's own row, so that the words do not tell the answer.

    Returns:
        [n]
    """
    odds, counts = (features[:, names.index(f"item: {what}")] for what in ("liked", "count"))
    tenths = np.rint(10.0 / (1.0 + np.exp(-odds))).astype(np.int64)
    numbers = np.searchsorted(BOUNDS, np.rint(np.expm1(counts)), side="right")
    return [ALL_WORDS[place] for place in (tenths * len(NUMBERS) + numbers).tolist()]
