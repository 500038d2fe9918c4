"""The routes over HTTP: status codes, headers, and the form of every refusal."""

import json

import pytest
from fastapi.testclient import TestClient

from optirag_core.config.settings import Settings

pytestmark = pytest.mark.ray

SCORE = {"user_id": "someone", "item_ids": ["b1"]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user_id": "u"}, "body.item_ids"),
        ({"user_id": "u", "item_ids": []}, "body.item_ids"),
        ({"user_id": "u", "item_ids": ["i"] * 1001}, "body.item_ids"),
        ({"user_id": "u", "item_ids": ["i", ""]}, "body.item_ids.1"),
        ({"user_id": "u", "item_ids": ["i", 7]}, "body.item_ids.1"),
        ({"user_id": "u" * 257, "item_ids": ["i"]}, "body.user_id"),
        ({"user_id": "u\x00", "item_ids": ["i"]}, "body.user_id"),
        ({"user_id": "u", "item_ids": ["i"], "model": "/etc/passwd"}, "body.model"),
        ({"user_id": "u", "item_ids": ["i"], "as_of": "yesterday"}, "body.as_of"),
        ({"user_id": "u", "item_ids": ["i"], "as_of": 1_700_000_000}, "body.as_of"),
        ({"user_id": "u", "item_ids": ["i"], "as_of": "0001-01-01T00:00:00Z"}, "body.as_of"),
        ({"user_id": "u", "item_ids": ["i"], "explain": "yes"}, "body.explain"),
        ({"user_id": "u", "item_ids": ["i"], "as_of_position": True}, "body.as_of_position"),
        ({"user_id": "u", "item_ids": ["i"], "history": [{"item_id": "i", "rating": "9"}]}, "body.history.0.rating"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(client: TestClient, body: dict, field: str):
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 422, answer.text
    assert field in answer.json()["fields"]
    assert answer.json()["problem"]["code"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(client: TestClient, number: str):
    for body in (
        '{"user_id": "u", "item_ids": ["i"], "history": [{"item_id": "i", "rating": NUMBER}]}',
        '{"user_id": NUMBER, "item_ids": ["i"]}',
        '{"user_id": "u", "item_ids": ["i"], "as_of_position": NUMBER}',
    ):
        content = body.replace("NUMBER", number)
        answer = client.post("/v1/score", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), (body, answer.status_code)


def test_every_route_asks_for_a_token_but_the_probes(client: TestClient):
    routes = [
        (method.upper(), path.format(user_id="u", item_id="i"))
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        for method in methods
    ]
    assert len(routes) >= 11
    for method, path in [*routes, ("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nothing")]:
        status = client.request(method, path, headers={"Authorization": "Bearer wrong"}).status_code
        assert status == (200 if path in ("/healthz", "/readyz") else 401), path


def test_a_large_body_is_refused_before_it_is_read(client: TestClient, own_workspace: Settings):
    body = json.dumps(SCORE | {"history": " " * own_workspace.serving.max_body_bytes})
    answer = client.post("/v1/score", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and answer.json()["problem"]["code"]


def test_the_page_of_the_api_lists_every_route(client: TestClient):
    paths = set(client.get("/openapi.json").json()["paths"])
    assert {"/v1/score", "/v1/rank", "/v1/recommend", "/v1/interactions", "/v1/model", "/readyz"} <= paths


def test_the_model_tells_its_artifacts_and_policies(client: TestClient):
    model = client.get("/v1/model").json()
    assert {"llm", "exit_heads", "exit_policy", "retriever", "dataset"} <= set(model["digests"])
    assert "on 7 users" in model["policies"]["normal"]["certificate"]


def test_ids_may_hold_slashes_and_percent_signs(client: TestClient):
    for user_id in ("a/b", "100%", "ü"):
        assert client.get(f"/v1/users/{user_id.replace('%', '%25')}").json()["user_id"] == user_id
