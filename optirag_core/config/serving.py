"""Settings of the endpoint: replicas, load, events. What a scorer needs of GPUs and threads is in `actors`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from optirag_core.config.section import Count, Positive, PositiveShare, Section


class ServingSettings(Section):
    """How the endpoint answers, and from when on it refuses."""

    num_scorers: Count = Field(1, description="the least number of scorer replicas")
    max_scorers: Count | None = Field(None, description="the largest; default: num_scorers, no autoscaling")
    num_context_builders: Annotated[int, Field(ge=0)] = Field(
        1, description="replicas that look up histories and build prompts; 0: each ingress does, a hop less (3 ms)"
    )
    max_context_builders: Count | None = Field(None, description="the largest number; default: no autoscaling")
    num_ingresses: Count = Field(1, description="replicas that speak HTTP")
    num_cpus_per_ingress: Positive = 0.1
    max_calls: Count = Field(64, description="calls in a scorer, waiting or running; the next is refused with 429")
    overload_share: PositiveShare = Field(
        0.5, description="share of max_calls from which on new calls follow the overload policy, where there is one"
    )
    max_waits: Count = Field(8, description="steps that may pass over a waiting row of the engine before it goes next")
    timeout_s: Positive = Field(30.0, description="a call that takes longer is given up with 503")
    retry_after_s: Count = Field(1, description="least Retry-After of a refusal")
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        1_048_576, description="of a request; more is refused with 413"
    )
    events_poll_s: Positive = Field(0.25, description="how often a replica looks for events that others have stored")
    health_period_s: Positive = Field(10.0, description="how often a scorer scores a known pair")
    shutdown_s: Positive = Field(30.0, description="a replica that is to end has this long for the calls in it")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for noun in ("scorers", "context_builders"):
            least, most = getattr(self, f"num_{noun}"), getattr(self, f"max_{noun}")
            if most and most < least:
                raise ValueError(f"serving.max_{noun} {most} is below serving.num_{noun} {least}")
        if self.max_context_builders and not self.num_context_builders:
            raise ValueError("serving.max_context_builders needs a serving.num_context_builders of at least 1")
        return self
