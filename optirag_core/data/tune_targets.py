"""Which training interactions become tune, the targets of LLM and exit heads: the last ones of users drawn by the seed.

A tune prompt shows what precedes the first of its user's targets. Few targets per user make tune prompts about as
long as test prompts, and they leave users most of their edges in the graph.

Shapes: N interactions, U users.
"""

import numpy as np

from optirag_core.config.data import DatasetSettings
from optirag_core.data.ordering import Sequences, seeded_keys

TRAIN_PER_TARGET = 5
"""A user gives one target for each 5 training interactions, and one where there are fewer.

Chosen by the total variation between the history lengths (3, 4 ... 14, 15 or more) of tune and test requests, on
BookCrossing (explicit, leave_last_out) and on generated data (last_share):

    up to 5 of any user        27.6 %, 37.2 %   46 % of BookCrossing's tune prompts have exactly 3 entries
    one for each 4             11.1 %, 31.8 %
    one for each 5             10.2 %, 27.6 %   14 % have exactly 3 entries; 19 % of test prompts
    one for each 6              9.6 %, 23.8 %   a tenth fewer targets
    one per user                9.6 %, 19.1 %   a third of the targets
"""

MAX_TARGETS_PER_USER = 8
"""Spreads the targets over users. On BookCrossing 8 gives 22,151 targets, 30 % of them from the tenth of users with the
most; 5 gives 18,779 and 22 %, 16 gives 26,289 and 41 %. The shares of history lengths are the same for all three.
Where users are few and active it leaves the share out of reach (MovieLens, 671 users: 3,895 of 11,695 targets), and is
doubled until it does not."""


def tune_targets(
    in_train: np.ndarray, sequences: Sequences, settings: DatasetSettings, seed: int
) -> tuple[np.ndarray, int]:
    """Draw users by the seed until `tune_share` of the eligible training interactions are targets.

    Args:
        in_train: [N] bool; each user's training interactions come before all others.

    Returns:
        Indices of the targets into [N], and the number that `tune_share` asks for: larger where `TRAIN_PER_TARGET`
        puts it out of reach.
    """
    eligible = in_train & (sequences.num_past >= settings.min_history)
    num_wanted = round(settings.split.tune_share * int(eligible.sum()))
    num_train = np.bincount(sequences.user, weights=in_train).astype(np.int64)  # [U]
    affordable = np.maximum(num_train // TRAIN_PER_TARGET, 1)  # [U]
    most = MAX_TARGETS_PER_USER
    while True:
        limit = np.minimum(affordable, most)  # [U]
        rows = np.flatnonzero(eligible & (sequences.position >= (num_train - limit)[sequences.user]))
        if len(rows) >= num_wanted or most >= affordable.max(initial=0):
            break
        most *= 2
    keys = seeded_keys(sequences.user_ids, f"{seed}:tune")[sequences.user[rows]]
    # users by key; within one user the last interaction first, so that targets cut off by the share are the earliest
    chosen = rows[np.lexsort((-sequences.position[rows], keys))]
    return chosen[:num_wanted], num_wanted
