"""What each route does: a request's model in, an answer's model out. No HTTP here."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from grpc.aio import AioRpcError
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

from optirag_core.config.serving import ServingSettings
from optirag_core.engine.groups import PairScore
from optirag_core.events.event import UserEvent
from optirag_core.events.event_log import Stored
from optirag_core.inference.explain import Explanation
from optirag_core.prompting.assembly import HistoryEntry
from serve_apps import schemas
from serve_apps.calls import Call, Context, NamedRequest, Refused, Reply
from serve_apps.meters import IngressMeters
from serve_apps.remote import awaited
from serve_apps.version import Version

MICROSECONDS = 1_000_000
GONE = (ActorDiedError, ActorUnavailableError, DeploymentUnavailableError, RequestCancelledError, AioRpcError)
"""A replica has ended: another one answers, or will."""

TWICE = "duplicate_pair"
"""`error_code` of an item that a call asks about again."""

MAX_SKEW_S = 300.0
"""An event may be this far ahead of this machine's clock."""


class Unanswered(Exception):
    """A call that gets a problem instead of an answer."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.problem = status, schemas.Problem(code=code, message=message)
        self.retry_after_s = retry_after_s


class Service:
    """The endpoint without its HTTP."""

    def __init__(self, scorers: Any, contexts: Any, version: Version, serving: ServingSettings) -> None:
        """
        Args:
            scorers: a `ScorerReplica`, or the handle of its deployment.
            contexts: a `ContextBuilder`, likewise.
            version: that most scorers are expected to have.
        """
        self._scorers, self._contexts = awaited(scorers), awaited(contexts)
        self._version, self._serving = version, serving
        self._meters = IngressMeters()
        self._position = 0  # of the event log, behind what this process has acknowledged

    async def score(self, asked: schemas.ScoreRequest) -> schemas.ScoreAnswer:
        """Scores in the order asked."""
        call = Call(_request(asked, asked.item_ids), self._known(asked), explain=asked.explain)
        return await self._answered(call)

    async def rank(self, asked: schemas.RankRequest) -> schemas.ScoreAnswer:
        """The best first; items that cannot be scored are behind all others, and never cut off."""
        return _ranked(await self.score(asked), asked.top_k)

    async def recommend(self, asked: schemas.RecommendRequest) -> schemas.ScoreAnswer:
        """The retriever's best items, ranked by the LLM."""
        call = Call(_request(asked), self._known(asked), asked.num_candidates, asked.explain)
        return _ranked(await self._answered(call), asked.top_k)

    async def explain(self, user_id: str, item_id: str) -> schemas.ScoreAnswer:
        """One pair, explained."""
        return await self.score(schemas.ScoreRequest(user_id=user_id, item_ids=[item_id], explain=True))

    async def interactions(self, asked: schemas.InteractionsRequest) -> schemas.InteractionsAnswer:
        """Store events."""
        item_ids = [event.item_id for event in asked.events]
        timed, unknown = await self._tried(lambda: self._contexts.fitting(item_ids))
        events = [_event(event, timed=timed) for event in asked.events]
        problems = [_event_problem(event, unknown) for event in events]
        good = [event for event, problem in zip(events, problems, strict=True) if problem is None]
        stored, position = await self._tried(lambda: self._contexts.append(good)) if good else ([], self._position)
        self._position = max(self._position, position)
        became = iter(stored)
        outcomes = [_outcome(event, problem or next(became)) for event, problem in zip(events, problems, strict=True)]
        return schemas.InteractionsAnswer(outcomes=outcomes, position=position)

    async def user(self, user_id: str) -> schemas.UserAnswer:
        """What is known of a user."""
        known = await self._tried(lambda: self._contexts.user(user_id, self._position))
        return schemas.UserAnswer(
            user_id=user_id,
            cold_start=known.cold_start,
            num_similar_users=len(known.similarities),
            similarities=list(known.similarities),
            history=[
                schemas.ShownEntry(item_id=entry.item_id, title=title, rating=entry.rating)
                for entry, title in zip(known.history, known.titles, strict=True)
            ],
        )

    async def users(self, query: str, limit: int) -> schemas.UsersAnswer:
        """Users whose ids begin with a text."""
        return schemas.UsersAnswer(user_ids=await self._tried(lambda: self._contexts.users(query, limit)))

    async def items(self, query: str, limit: int) -> schemas.ItemsAnswer:
        """Items whose titles hold a text."""
        found = await self._tried(lambda: self._contexts.items(query, limit))
        return schemas.ItemsAnswer(items=[schemas.KnownItem(item_id=item_id, title=title) for item_id, title in found])

    async def model(self) -> schemas.ModelAnswer:
        """What answers."""
        return await self._tried(self._scorers.model)

    def _known(self, asked: schemas.UserRequest) -> int:
        """Position of the event log that the call has to know."""
        return max(self._position, asked.position)

    async def _answered(self, call: Call) -> schemas.ScoreAnswer:
        started = time.perf_counter()
        try:
            context, reply = await self._scored(call)
        except Unanswered as unanswered:
            self._meters.unanswered(unanswered.problem.code)
            raise
        self._meters.answered(context, time.perf_counter() - started)
        return _answer(context, reply)

    async def _scored(self, call: Call) -> tuple[Context, Reply]:
        """Prompts are made by the version that scores them: a scorer of another one, while an update rolls, says so."""
        version, groups = self._version, {}
        async with self._in_time():
            while version.key not in groups:
                context = await self._tried(partial(self._contexts.build, call, version))
                groups[version.key] = context.group
                reply = await self._tried(partial(self._scorers.score, groups, explain=call.explain))
                if isinstance(reply, Reply):
                    return context, reply
                if isinstance(reply, Refused):
                    raise Unanswered(reply.status, reply.code, reply.message, reply.retry_after_s)
                version = reply.version
        raise AssertionError("a scorer has refused prompts of its own version")

    async def _tried(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """An answer of a replica; where one has ended meanwhile, another one's. All calls may be repeated."""
        try:
            async with self._in_time():
                try:
                    return await ask()
                except GONE:
                    return await ask()
        except (*GONE, BackPressureError):
            retry_after_s = self._serving.retry_after_s
            raise Unanswered(503, "unavailable", "no replica is ready: try again", retry_after_s) from None

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._serving.timeout_s):
                yield
        except TimeoutError:
            message = f"no answer within {self._serving.timeout_s:g} s: try again, or ask for fewer items"
            raise Unanswered(503, "timeout", message, self._serving.retry_after_s) from None


def _request(asked: schemas.UserRequest, item_ids: Sequence[str] = ()) -> NamedRequest:
    history = [HistoryEntry(entry.item_id, entry.rating, _given(entry.event_time)) for entry in asked.history]
    return NamedRequest(asked.user_id, item_ids, _given(asked.as_of), asked.as_of_position, history)


def _given(moment: datetime | None) -> int | None:
    return None if moment is None else _time(moment)


def _time(moment: datetime) -> int:
    """Microseconds since 1970, UTC."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * MICROSECONDS + since.microseconds


def _event(event: schemas.Interaction, *, timed: bool) -> UserEvent:
    given = event.event_time is not None or not timed
    moment = event.event_time if given else datetime.now(UTC)
    return UserEvent(event.event_id, event.user_id, event.item_id, event.rating, _given(moment), time_given=given)


def _event_problem(event: UserEvent, unknown: Collection[str]) -> schemas.Problem | None:
    if event.item_id in unknown:
        return schemas.Problem(code="unknown_item", message="the item is not in the items table: send known items")
    if event.time is not None and event.time > _time(datetime.now(UTC)) + MAX_SKEW_S * MICROSECONDS:
        return schemas.Problem(
            code="in_the_future", message=f"event_time is more than {MAX_SKEW_S:g} s ahead: send when it has happened"
        )
    return None


def _outcome(event: UserEvent, became: Stored | schemas.Problem) -> schemas.EventOutcome:
    if isinstance(became, schemas.Problem):
        return schemas.EventOutcome(event_id=event.event_id, status="refused", problem=became)
    if became is Stored.CONFLICT:
        problem = schemas.Problem(
            code="event_id_conflict", message="the event_id was used before for another event: give each its own"
        )
        return schemas.EventOutcome(event_id=event.event_id, status="refused", problem=problem)
    return schemas.EventOutcome(event_id=event.event_id, status=became.value)


def _answer(context: Context, reply: Reply) -> schemas.ScoreAnswer:
    group = context.group
    return schemas.ScoreAnswer(
        user_id=context.user_id,
        items=_items(context, reply),
        cold_start=context.cold_start,
        num_similar_users=context.num_similar_users,
        unknown_entries=context.unknown_entries,
        model_version=reply.model_version,
        policy=reply.policy,
        tokens=schemas.Tokens(
            prefix=len(group.prefix) if group else 0,
            suffixes=sum(map(len, group.suffixes)) if group else 0,
            dropped_entries=context.dropped_entries,
            dropped_users=context.dropped_users,
        ),
        timings=schemas.Timings(
            context_ms=1e3 * context.seconds, queue_ms=1e3 * reply.queue_s, engine_ms=1e3 * reply.engine_s
        ),
    )


def _items(context: Context, reply: Reply) -> list[schemas.ScoredItem]:
    """One per item asked, in order: of an item that is asked twice the first gets the score."""
    explanations: Sequence[Explanation | None] = reply.explanations or [None] * len(reply.scores)
    scored = dict(zip(context.candidates, zip(reply.scores, explanations, strict=True), strict=True))
    rejects = {(reject.item_id, reject.error_code == TWICE): reject for reject in context.rejects}
    items, seen = [], set()
    for item_id in context.asked:
        if item_id in scored and item_id not in seen:
            pair, explanation = scored[item_id]
            told = _explained(explanation, context.similarities) if explanation else None
            items.append(_scored(item_id, context.titles[item_id], pair, told))
        else:
            reject = rejects[item_id, item_id in seen]
            problem = schemas.Problem(code=reject.error_code, message=reject.error)
            items.append(schemas.ScoredItem(item_id=item_id, problem=problem))
        seen.add(item_id)
    return items


def _explained(explanation: Explanation, similarities: Sequence[float]) -> schemas.Explanation:
    return schemas.Explanation(
        similarities=list(similarities),
        layers=[
            schemas.LayerView(
                layer=head.layer,
                score=head.score,
                evidence_logit=head.evidence_logit,
                text_logit=head.text_logit,
                in_use=head.in_use,
                stops=head.stops,
            )
            for head in explanation.heads
        ],
        evidence_score=explanation.evidence_score,
        stop=explanation.stop,
        prompt_sha256=explanation.prompt_sha256,
    )


def _scored(
    item_id: str, title: str, pair: PairScore, explanation: schemas.Explanation | None
) -> schemas.ScoredItem:  # fmt: skip
    if not math.isfinite(pair.score):
        problem = schemas.Problem(
            code="score_not_finite", message=f"p(yes) is {pair.score}: the LLM's numbers overflow"
        )
        return schemas.ScoredItem(item_id=item_id, title=title, problem=problem)
    return schemas.ScoredItem(
        item_id=item_id, title=title, score=pair.score, exit_layer=pair.exit_layer, explanation=explanation
    )


def _ranked(answer: schemas.ScoreAnswer, top_k: int | None) -> schemas.ScoreAnswer:
    """Equal scores in the order asked."""
    scored = [(item.score, item) for item in answer.items if item.score is not None]
    best = [item for _, item in sorted(scored, key=lambda each: -each[0])[:top_k]]
    return answer.model_copy(update={"items": best + [item for item in answer.items if item.problem]})
