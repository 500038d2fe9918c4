"""Settings of the exits: hidden states, heads, policy and its calibration."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from optirag_core.config.section import Count, Positive, Section, Share

ExitCriterion = Literal["ratio", "probability", "confidence", "entropy", "patience"]


class ExitFeaturesSettings(Section):
    """Hidden states of the frozen LLM at labelled pairs, from which heads and policies are made."""

    max_users: Count | None = Field(
        None, description="at most this many users of each role (heads, policy) and split, spread evenly"
    )
    test_users: Count = Field(
        2000,
        description="test users, drawn with the seed as requests.max_users draws, at whom the report looks layer by "
        "layer; nothing learns from them",
    )
    frozen_prefixes: tuple[Count, ...] = Field(
        (), description="values of exit_policy.frozen_prefix_after to choose from; each runs the LLM once more"
    )


class ExitHeadsSettings(Section):
    """The heads of multi-head early exit and their training (paper section 5.2)."""

    layers: tuple[Count, ...] = Field(
        (3, 4), description="1-based; of the default llm.scratch.shape. The paper's, for 32 layers: 5, 10, ..., 30"
    )
    learning_rate: Positive = Field(1e-3, description="lambda_0 of section 5.2")
    decay: Annotated[float, Field(ge=0.0)] = Field(0.1, description="beta of section 5.2")
    epochs: Count = 20
    batch_size: Count = 256
    single_head: bool = Field(False, description="the head of the last layer at every exit layer, for comparison")
    loss: Literal["answers", "vocabulary"] = Field(
        "answers",
        description="cross-entropy of the answer among the two answer words, which is what scoring reads; or among all "
        "tokens (section 5.2)",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise ValueError(
                f"exit_heads.layers must be a strictly increasing, non-empty list, got {list(self.layers)}"
            )
        return self


class ExitPolicySettings(Section):
    """When a pair stops (paper section 5, algorithm 2): as calibrated, or by a policy that is named here."""

    criterion: Literal["calibrated", ExitCriterion, "none"] = Field(
        "calibrated",
        description="calibrated: the policy that calibrate_exits has certified; none: full depth; any other needs "
        "uncertified. ratio: p_yes/p_no (algorithm 2); probability: p_yes (section 5.1); confidence: max(p, 1 - p); "
        "entropy: in nats; patience: one answer over the window",
    )
    uncertified: bool = Field(
        False, description="score by an approximate policy that has no certificate; --uncertified sets it"
    )
    window: Annotated[int, Field(ge=2)] = Field(3, description="m of algorithm 2; of calibrated policies the widest")
    threshold: Annotated[float, Field(ge=0.0)] = Field(0.01, description="tau of algorithm 2")
    evidence_confidence: Annotated[float, Field(ge=0.5, le=1.0)] | None = Field(
        None, description="a pair of which the evidence alone is at least this sure stops before layer 1; approximate"
    )
    group_stop: Count | None = Field(
        None, description="k_min: a user's candidates stop together once fewer of them are left; approximate"
    )
    frozen_prefix_after: Count | None = Field(
        None, description="above this layer the shared prefix keeps its hidden states; approximate"
    )

    @model_validator(mode="after")
    def _certified(self) -> Self:
        approximations = {name: getattr(self, name) for name in ("evidence_confidence", "frozen_prefix_after")}
        if self.criterion == "calibrated":
            names = ("threshold", "group_stop", *approximations)
            named = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
            if named:
                raise ValueError(
                    f"exit_policy.{named[0]} belongs to a policy that is named by hand, and calibrate_exits chooses "
                    "its own: leave it out, or set exit_policy.criterion as well"
                )
        elif not self.uncertified and (self.criterion != "none" or any(approximations.values())):
            raise ValueError(
                f"exit_policy.criterion {self.criterion} with these settings may change scores and has no certificate: "
                "set it to calibrated, or to none alone for full depth, or give --uncertified"
            )
        return self


class CalibrationSettings(Section):
    """The exit policies to choose from, and what the chosen one may cost (`optirag_core.training.exit_policy`).

    Windows are 2 to `exit_policy.window`, exit layers all of `exit_heads.layers` or the last ones of them.
    """

    epsilon: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.005, description="nats of log loss against full depth, averaged over a user's pairs and over users"
    )
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="chance, over the draw of the users, that a policy is chosen that costs more than epsilon"
    )
    overload_epsilon: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="a looser bound, above epsilon: the cheapest policy within it is what the endpoint follows above "
        "serving.overload_share of its load; null: it has none",
    )
    criteria: tuple[ExitCriterion, ...] = Field(
        ("ratio", "probability", "confidence", "patience"),
        description="rules to try; entropy is left out because it stops the same pairs as confidence",
    )
    thresholds: tuple[Positive, ...] = Field(
        (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4),
        description="of every criterion but patience; confidence takes 1 - threshold",
    )
    group_stops: tuple[Count | None, ...] = Field(
        (None, 2, 4), description="used where every user has as many candidates"
    )
    evidence_shares: tuple[Share, ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0),
        description="share of pairs that stop at depth 0, the surest first; used where the heads read evidence",
    )

    @model_validator(mode="after")
    def _overload_is_looser(self) -> Self:
        if self.overload_epsilon is not None and self.overload_epsilon <= self.epsilon:
            raise ValueError(
                f"calibration.overload_epsilon {self.overload_epsilon:g} must be above calibration.epsilon "
                f"{self.epsilon:g}: raise it, or set it to null for no overload policy"
            )
        return self
