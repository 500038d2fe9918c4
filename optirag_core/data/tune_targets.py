"""Which training interactions become tune, the targets of the LLM: the last ones of users drawn by the seed.

A tune prompt shows what precedes the first of its user's targets. Few targets per user therefore give prompts as long
as those of test, and leave users their edges in the graph.

Shapes: N interactions, U users.
"""

import numpy as np

from optirag_core.config import DatasetSettings
from optirag_core.data.ordering import Sequences, seeded_keys

TRAIN_PER_TARGET = 5
"""A user gives one target for each 5 training interactions, and one where there are fewer.

Lengths 3, 4 ... 14, 15 or more of tune and test prompts, total variation; BookCrossing (explicit, leave-last-out), and
generated data (last_share). Giving the last 5 without regard to the length: 27.6 %, 37.2 %; one target for each 4:
11.1 %, 31.8 %; each 5: 10.2 %, 27.6 %; each 6: 9.6 %, 23.8 %, a tenth fewer answers; one alone: 9.6 %, 19.1 %. Tune
prompts of exactly 3 entries on BookCrossing: 46 % before, 14 % now, where test has 19 %.
"""

MAX_TARGETS_PER_USER = 8
"""Spreads the targets over users. On BookCrossing 8 gives 22,151 targets, 30 % of them to the tenth of the users who
have most; 5 gives 18,779 and 22 %, 16 gives 26,289 and 41 %. The lengths of prompts stay the same."""


def tune_targets(
    in_train: np.ndarray, sequences: Sequences, settings: DatasetSettings, seed: int
) -> tuple[np.ndarray, int]:
    """Choose whole users' targets by the seed until `tune_share` of the eligible training interactions is reached.

    Args:
        in_train: [N] bool; a user's training interactions are the first of the user.

    Returns:
        Rows of the targets, and how many `tune_share` asks for: more than there are rows where the limits per user
        leave too few.
    """
    eligible = in_train & (sequences.num_past >= settings.min_history)
    num_train = np.bincount(sequences.user, weights=in_train).astype(np.int64)  # [U]
    limit = np.clip(num_train // TRAIN_PER_TARGET, 1, MAX_TARGETS_PER_USER)  # [U]
    rows = np.flatnonzero(eligible & (sequences.position >= (num_train - limit)[sequences.user]))
    keys = seeded_keys(sequences.user_ids, f"{seed}:tune")[sequences.user[rows]]
    # users by key; within one user the last interaction first, so that targets cut off by the share are the earliest
    chosen = rows[np.lexsort((-sequences.position[rows], keys))]
    num_wanted = round(settings.split.tune_share * int(eligible.sum()))
    return chosen[:num_wanted], num_wanted
