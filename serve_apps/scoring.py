"""The scorer replica: admission, and the engine among all other calls.

Above `serving.overload_share` of its calls it answers by the overload policy, which is certified as well and stops
earlier; above `serving.max_calls` it refuses.
"""

import logging
from collections.abc import Mapping, Sequence

import torch

from optirag_core.engine.certificate import NORMAL, OVERLOAD
from optirag_core.engine.groups import PairScore, UserGroup
from optirag_core.engine.memory import keep_freed_memory
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import ModelError, OptiragError
from optirag_core.evidence.model import EvidenceModel
from optirag_core.inference.explain import Explanation, explain_group
from optirag_core.inference.parts import open_scorers
from optirag_core.inference.policy import open_calibrations
from serve_apps.calls import OtherVersion, Refused, Reply
from serve_apps.engine_loop import EngineFailed, EngineLoop, Scores
from serve_apps.meters import ScorerMeters
from serve_apps.model import model_answer
from serve_apps.schemas import ModelAnswer
from serve_apps.version import Version

log = logging.getLogger(__name__)

HEALTH_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Of a known pair's score; what else runs moves it by 1e-5 in float32, and by the dtype's own error in bfloat16."""


class ScorerReplica:
    """A replica; all its methods are coroutines."""

    def __init__(self, version: Version) -> None:
        settings, artifacts = version.open()
        torch.set_num_threads(settings.actors.torch_threads)
        gpu = bool(settings.actors.num_gpus_per_scorer)
        if not gpu:
            keep_freed_memory()
        self._scorers = open_scorers(settings, artifacts, device="cuda" if gpu else "cpu")
        self._evidence = EvidenceModel.open(artifacts["evidence"].path)
        self._version, self._serving = version, settings.serving
        self._model = model_answer(settings, artifacts, self._scorers, open_calibrations(settings, artifacts))
        self._calls, self._meters = 0, ScorerMeters()
        self._known = known_group(self._scorers[NORMAL])
        [[self._expected]] = self._scorers[NORMAL].score([self._known]).scores
        self._loop, self._steps = EngineLoop(self._scorers, max_tokens=settings.engine.max_tokens_in_flight), 0
        self._tolerance = HEALTH_TOLERANCE[settings.engine.dtype]

    async def score(
        self, groups: Mapping[str, UserGroup | None], *, explain: bool = False
    ) -> Reply | Refused | OtherVersion:
        """Answer one call, or say why not.

        Args:
            groups: the call's prompts, by the key of the version that made them; None where no item can be scored.
        """
        if self._version.key not in groups:
            return OtherVersion(self._version)
        if self._calls >= self._serving.max_calls:
            self._meters.refused()
            return self._full()
        self._calls += 1
        self._meters.load(self._calls)
        try:
            reply = await self._answered(groups[self._version.key], explain=explain)
        except (torch.OutOfMemoryError, ModelError, EngineFailed) as error:
            log.error("a call failed in the engine: %s", type(error).__name__)
            return Refused(503, "engine_failed", "the engine cannot compute this call", self._serving.retry_after_s)
        finally:
            self._calls -= 1
        self._meters.answered(reply)
        return reply

    async def model(self) -> ModelAnswer:
        """What answers."""
        return self._model

    async def check_health(self) -> None:
        """Serve asks: a known pair must get its score; while calls are in it, it is enough that the engine gets on.

        Raises:
            OptiragError: it gets another one, or none; Serve then replaces the replica.
        """
        if not self._loop.is_alive:
            raise OptiragError("the engine has stopped")
        steps, self._steps = self._steps, self._loop.num_steps
        if self._calls and self._loop.num_steps > steps:
            return
        [pair] = (await self._loop.score(self._known, NORMAL)).scores
        if not abs(pair.score - self._expected.score) <= self._tolerance:  # also where it is no number
            raise OptiragError(f"a known pair has a score of {pair.score}, expected {self._expected.score}")

    async def _answered(self, group: UserGroup | None, *, explain: bool) -> Reply:
        policy = self._policy()
        scores, explanations = Scores([], 0.0, 0.0), None
        if group:
            scores = await self._loop.score(group, policy)
            if explain:
                explanations = await self._loop.ask(lambda: self._explained(group, scores.scores, policy))
        return Reply(
            scores=scores.scores,
            explanations=explanations,
            policy=policy,
            model_version=self._model.model_version,
            queue_s=scores.queue_s,
            engine_s=scores.engine_s,
        )

    def _policy(self) -> str:
        busy = self._calls > self._serving.overload_share * self._serving.max_calls
        return OVERLOAD if busy and OVERLOAD in self._scorers else NORMAL

    def _explained(self, group: UserGroup, scores: Sequence[PairScore], policy: str) -> list[Explanation]:
        return explain_group(self._scorers[policy], group, scores, self._evidence)

    def _full(self) -> Refused:
        """The queue is full: whoever comes back after the time that it takes to empty finds room."""
        seconds = self._serving.retry_after_s
        return Refused(
            429, "overloaded", f"{self._serving.max_calls} calls are waiting or running: try again in {seconds} s",
            seconds,
        )  # fmt: skip


def known_group(scorer: Scorer) -> UserGroup:
    """A short prompt of tokens that every vocabulary has."""
    evidence = [[0.0] * scorer.num_features] if scorer.num_features else None
    return UserGroup([*range(1, 17)], [[1, 2, 3]], evidence)
