"""Which users teach which part: the LLM's, the exit heads' and the exit policy's users are disjoint.

Heads that are trained on the answers that the LLM was fitted to are worse than untouched copies (BookCrossing, log loss
of the heads at layers 3 and 4: 0.619 and 0.620, copies 0.601 and 0.604, trained on 310 unseen answers 0.587 and 0.586),
and a policy that is chosen on them would promise too much.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa

from optirag_core.config.data import SplitSettings
from optirag_core.data.ordering import seeded_keys

Role = Literal["llm", "heads", "policy"]
KEYS = 2.0**64


@dataclass(frozen=True)
class Roles:
    """How users are divided, each by the seed and its own id alone."""

    seed: int
    heads_share: float
    policy_share: float

    @classmethod
    def of(cls, settings: SplitSettings, seed: int) -> Self:
        return cls(seed, settings.heads_share, settings.policy_share)

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> Self:
        """As `to_info` wrote it into the data set's info."""
        return cls(**info)

    def to_info(self) -> dict[str, Any]:
        return asdict(self)

    def rows(self, interactions: pa.Table, role: Role) -> pa.Table:
        """The interactions of the users with this role."""
        users = interactions["user_id"].combine_chunks().dictionary_encode()
        drawn = seeded_keys(users.dictionary, f"{self.seed}:role") / KEYS  # [U] in [0, 1)
        bounds = {
            "policy": (0.0, self.policy_share),
            "heads": (self.policy_share, self.policy_share + self.heads_share),
            "llm": (self.policy_share + self.heads_share, np.inf),
        }
        low, high = bounds[role]
        return interactions.filter(pa.array(((drawn >= low) & (drawn < high))[users.indices.to_numpy()]))
