"""Settings of comparing two scoring runs, and from when on a new run is kept from its readers."""

from typing import Annotated

from pydantic import Field

from optirag_core.config.section import Count, PositiveShare, Section, Share

Bound = Annotated[float, Field(ge=0.0)]


class CompareSettings(Section):
    """What may change from one run to the next; bounds that are null are not looked at.

    With a bound the job `score` compares a new run with the one that readers get. One that changes more is committed
    and not made the newest.
    """

    max_auc_drop: Share | None = Field(None, description="AUC of the run before less the new one's, labelled pairs")
    max_log_loss_rise: Bound | None = Field(None, description="nats, of labelled pairs")
    max_mean_score_drift: Share | None = Field(None, description="mean |difference| of the scores of a pair")
    max_exit_changed: Share | None = Field(None, description="share of pairs that stopped at another layer")
    max_top_changed: Share | None = Field(
        None, description="share of users whose best top_k items changed, of those with more than top_k pairs"
    )
    min_common_share: Share | None = Field(
        None, description="least share of the pairs of either run that both scored: nothing is known of the others"
    )
    top_k: Count = Field(10, description="items of a user's list")
    user_share: PositiveShare = Field(
        1.0, description="share of the users, by a hash of their ids, that is compared: pairs are held in memory"
    )

    @property
    def has_bounds(self) -> bool:
        """Whether a run can be kept back."""
        return any(value is not None for name, value in self if name.startswith(("max_", "min_")))
