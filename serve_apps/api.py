"""The routes of the endpoint, around any `Service`."""

from typing import Annotated

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi_offline import FastAPIOffline

from serve_apps import schemas
from serve_apps.errors import answer_errors, error_response
from serve_apps.schemas import Id
from serve_apps.service import Service, Unanswered
from serve_apps.static import page_routes

LIMIT = Query(20, ge=1, le=100)
TEXT = Query("", max_length=100)
PathId = Annotated[Id, Path()]
PROBLEMS = {status: {"model": schemas.ErrorAnswer} for status in (400, 401, 413, 415, 422, 429, 503)}


def create_api(service: Service) -> FastAPI:
    """The FastAPI app: a page for a person at `/`, the API's own at `/docs`; both load nothing from outside."""
    api = FastAPIOffline(title="OptiRAG", version="1", responses=PROBLEMS, redoc_url=None)

    @api.post("/v1/score", response_model=schemas.ScoreAnswer)
    async def score(asked: schemas.ScoreRequest) -> Response:
        """p(yes) of each item for the user, in the order asked."""
        return _json(await service.score(asked))

    @api.post("/v1/rank", response_model=schemas.ScoreAnswer)
    async def rank(asked: schemas.RankRequest) -> Response:
        """The same, best first."""
        return _json(await service.rank(asked))

    @api.post("/v1/recommend", response_model=schemas.ScoreAnswer)
    async def recommend(asked: schemas.RecommendRequest) -> Response:
        """The best items of those that the retriever finds for the user."""
        return _json(await service.recommend(asked))

    @api.get("/v1/explain/{user_id:path}/{item_id}")
    async def explain(user_id: PathId, item_id: PathId) -> schemas.ScoreAnswer:
        """One pair: similar users, every head's view, what the evidence says, where it stopped and why."""
        return await service.explain(user_id, item_id)

    @api.post("/v1/interactions")
    async def interactions(asked: schemas.InteractionsRequest) -> schemas.InteractionsAnswer:
        """Store what users have just done; the next call knows it. Events with the same event_id count once."""
        return await service.interactions(asked)

    _add_lookups(api, service)
    api.router.routes.extend(page_routes())
    api.exception_handler(Unanswered)(_unanswered)
    answer_errors(api)
    return api


def _add_lookups(api: FastAPI, service: Service) -> None:
    """What is known, and whether somebody answers."""

    @api.get("/v1/users")
    async def users(query: str = TEXT, limit: int = LIMIT) -> schemas.UsersAnswer:
        """Users whose ids begin with a text."""
        return await service.users(query, limit)

    @api.get("/v1/users/{user_id:path}")
    async def user(user_id: PathId) -> schemas.UserAnswer:
        """A user's history and how many similar users there are."""
        return await service.user(user_id)

    @api.get("/v1/items")
    async def items(query: str = TEXT, limit: int = LIMIT) -> schemas.ItemsAnswer:
        """Items whose titles hold a text."""
        return await service.items(query, limit)

    @api.get("/v1/model")
    async def model() -> schemas.ModelAnswer:
        """Artifacts, exit policies and certificates."""
        return await service.model()

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """This process runs."""
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz() -> dict[str, str]:
        """A scorer answers."""
        await service.model()
        return {"status": "ok"}


def _json(answer: schemas.ScoreAnswer) -> Response:
    """FastAPI would validate each item again."""
    return Response(answer.model_dump_json(), media_type="application/json")


async def _unanswered(_: Request, reason: Unanswered) -> Response:
    headers = {"Retry-After": str(reason.retry_after_s)} if reason.retry_after_s else {}
    return error_response(reason.status, reason.problem.code, reason.problem.message, headers=headers)
