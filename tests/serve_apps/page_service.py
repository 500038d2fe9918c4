"""A small service that speaks the endpoint's models: scores from a formula, and ratings that move them."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi import FastAPI, Request, Response

from serve_apps import schemas
from serve_apps.errors import error_response
from serve_apps.static import page_routes

MARKUP = '<img src="/nowhere.png" onerror="alert(1)"><b>Bold</b> &amp; {{ title }}'
RIGHT_TO_LEFT = "אלף לילה ולילה: סיפורי שהרזאד (كتاب ألف ليلة وليلة)"
LONG = "The-Life-and-Strange-Surprizing-Adventures-of-Robinson-Crusoe-" * 4
OVERRIDE = "Backwards \u202e title"
TITLES = [
    MARKUP, RIGHT_TO_LEFT, LONG, OVERRIDE, "Middlemarch", "The Left Hand of Darkness", "Beloved", "Solaris",
    "The Remains of the Day", "Invisible Cities", "Kindred", "A Wizard of Earthsea", "The Name of the Rose",
    "Mrs Dalloway", "Things Fall Apart", "The Master and Margarita", "Pale Fire", "Austerlitz", "The Waves",
    "Roadside Picnic", "Ficciones", "Persuasion", "The Dispossessed", "Pedro Páramo",
]  # fmt: skip
ITEMS = {f"b{number:02}": title for number, title in enumerate(TITLES)}
LIKE_THRESHOLD = 3.0
LAYERS = (0, 2, 4, 6, 8)
NUM_KINDS = 3
"""A liked book makes the books of its kind likelier, the number of a book by this is its kind."""


@dataclass
class PageService:
    """What the app answers from, and what it was asked."""

    histories: dict[str, list[tuple[str, float]]] = field(
        default_factory=lambda: {"anna": [("b20", 5.0), ("b21", 2.0), ("b00", 4.0)], "anton": [("b22", 4.0)]}
    )
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # status, headers: of the next posts
    policy: str = "normal"
    event_ids: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)  # paths

    def user(self, user_id: str) -> schemas.UserAnswer:
        history = self.histories.get(user_id, [])
        similarities = [0.93, 0.88, 0.71, 0.4] if history else []
        return schemas.UserAnswer(
            user_id=user_id,
            cold_start=not history,
            num_similar_users=len(similarities),
            similarities=similarities,
            history=[schemas.ShownEntry(item_id=item, title=ITEMS[item], rating=rating) for item, rating in history],
        )

    def ranked(self, user_id: str, item_ids: Sequence[str]) -> schemas.ScoreAnswer:
        user = self.user(user_id)
        items = sorted((self._scored(user_id, item) for item in item_ids), key=lambda item: -(item.score or -1.0))
        return schemas.ScoreAnswer(
            user_id=user_id, items=items, cold_start=user.cold_start, num_similar_users=user.num_similar_users,
            model_version="3f9c2a71d0be", policy=self.policy,
            tokens=schemas.Tokens(prefix=1060, suffixes=21 * len(items), dropped_entries=0, dropped_users=0),
            timings=schemas.Timings(context_ms=4.2, queue_ms=0.3, engine_ms=61.0),
        )  # fmt: skip

    def recommended(self, user_id: str, count: int) -> schemas.ScoreAnswer:
        read = {item for item, _ in self.histories.get(user_id, [])}
        return self.ranked(user_id, [item for item in ITEMS if item not in read][:count])

    def add(self, event: schemas.Interaction) -> schemas.EventOutcome:
        status = "duplicate" if event.event_id in self.event_ids else "stored"
        if status == "stored":
            self.event_ids.append(event.event_id)
            self.histories.setdefault(event.user_id, []).append((event.item_id, event.rating))
        return schemas.EventOutcome(event_id=event.event_id, status=status)

    def _scored(self, user_id: str, item_id: str) -> schemas.ScoredItem:
        if item_id == "b11":
            problem = schemas.Problem(code="score_not_finite", message="p(yes) is nan: the LLM's numbers overflow")
            return schemas.ScoredItem(item_id=item_id, title=ITEMS[item_id], problem=problem)
        number = int(item_id[1:])
        liked = [1 if rating > LIKE_THRESHOLD else -1 for item, rating in self.histories.get(user_id, [])
                 if int(item[1:]) % NUM_KINDS == number % NUM_KINDS]  # fmt: skip
        evidence = 1.2 * math.sin(2.3 * number)
        text = 0.9 * sum(liked) + 0.5 * math.cos(1.7 * number)
        exit_layer = LAYERS[number % len(LAYERS)]
        views = [_view(layer, evidence, text, exit_layer) for layer in LAYERS]
        [score] = [view.score for view in views if view.layer == exit_layer]
        explanation = schemas.Explanation(
            similarities=self.user(user_id).similarities,
            layers=views,
            evidence_score=_sigmoid(evidence),
            stop=f"The head at layer {exit_layer} stopped it: the last change of its ratio, 0.004, was within 0.01 of "
            "the mean of those before.",
            prompt_sha256=hashlib.sha256(f"{user_id} {item_id}".encode()).hexdigest(),
        )  # fmt: skip
        return schemas.ScoredItem(
            item_id=item_id, title=ITEMS[item_id], score=score, exit_layer=exit_layer, explanation=explanation
        )


def page_app(service: PageService) -> FastAPI:
    """The page, and the routes that it asks."""
    app = FastAPI()
    app.router.routes.extend(page_routes())

    @app.middleware("http")
    async def planned(request: Request, call_next) -> Response:
        service.asked.append(request.url.path)
        if service.refusals and request.method == "POST":
            status, headers = service.refusals.pop(0)
            return error_response(status, "planned", "as the test asked for", headers=headers)
        return await call_next(request)

    @app.get("/v1/users")
    async def users(query: str = "") -> schemas.UsersAnswer:
        return schemas.UsersAnswer(user_ids=sorted(user for user in service.histories if user.startswith(query)))

    @app.get("/v1/users/{user_id:path}")
    async def user(user_id: str) -> schemas.UserAnswer:
        return service.user(user_id)

    @app.get("/v1/items")
    async def items(query: str = "") -> schemas.ItemsAnswer:
        found = [(item, title) for item, title in ITEMS.items() if query.lower() in title.lower()]
        return schemas.ItemsAnswer(items=[schemas.KnownItem(item_id=item, title=title) for item, title in found])

    @app.post("/v1/rank")
    async def rank(asked: schemas.RankRequest) -> schemas.ScoreAnswer:
        return service.ranked(asked.user_id, asked.item_ids)

    @app.post("/v1/recommend")
    async def recommend(asked: schemas.RecommendRequest) -> schemas.ScoreAnswer:
        return service.recommended(asked.user_id, asked.top_k)

    @app.post("/v1/interactions")
    async def interactions(asked: schemas.InteractionsRequest) -> schemas.InteractionsAnswer:
        outcomes = [service.add(event) for event in asked.events]
        return schemas.InteractionsAnswer(outcomes=outcomes, position=len(service.event_ids))

    @app.get("/v1/model")
    async def model() -> schemas.ModelAnswer:
        return schemas.ModelAnswer(
            model_version="3f9c2a71d0be", digests={"llm": "ab" * 32, "exit_heads": "cd" * 32}, num_layers=8,
            exit_layers=list(LAYERS), policies={"normal": _policy(0.01), "overload": _policy(0.05)}, timed=False,
            like_threshold=LIKE_THRESHOLD,
        )  # fmt: skip

    return app


def _view(layer: int, evidence: float, text: float, exit_layer: int) -> schemas.LayerView:
    """The deeper, the more the text says."""
    share = layer / LAYERS[-1]
    text_logit = None if layer == 0 else text * share + 0.2 * math.sin(layer)
    return schemas.LayerView(
        layer=layer, score=_sigmoid(evidence + (text_logit or 0.0)), evidence_logit=evidence, text_logit=text_logit,
        in_use=layer != 2, stops=layer >= exit_layer,
    )  # fmt: skip


def _policy(threshold: float) -> schemas.PolicyAnswer:
    return schemas.PolicyAnswer(
        criterion="ratio", layers=list(LAYERS), threshold=threshold, window=3, evidence_confidence=0.9,
        flops_share=0.41, mean_exit_layer=3.4, certificate="loss within 0.006 of full depth with confidence 0.95",
    )  # fmt: skip


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
