import json

from benchmarks.fuzz_corpus import VALUES, WHOLE, broken_fields, requests, valid_bodies
from serve_apps.limits import MAX_BODY_BYTES
from serve_apps.schemas import InteractionsRequest, RankRequest, RecommendRequest, ScoreRequest
from serve_apps.strict_json import NotStrict, check_json

MODELS = {
    "/v1/score": ScoreRequest,
    "/v1/rank": RankRequest,
    "/v1/recommend": RecommendRequest,
    "/v1/interactions": InteractionsRequest,
}


def test_the_bodies_that_are_broken_have_every_field() -> None:
    """A field that the corpus forgets is a field that nobody tries."""
    for route, body in valid_bodies("u", "i").items():
        asked = MODELS[route].model_validate(body)
        assert set(body) == set(MODELS[route].model_fields)
        for name, inner in (("history", body.get("history")), ("events", body.get("events"))):
            assert not inner or set(inner[0]) == set(type(getattr(asked, name)[0]).model_fields)


def test_each_field_gets_each_value() -> None:
    broken = list(broken_fields({"a": 1, "b": [{"c": "x"}]}))
    assert len(broken) == 4 * len(VALUES)  # a, b, b.0, b.0.c
    assert b'{"a": NaN, "b": [{"c": "x"}]}' in broken and b'{"a": 1, "b": [{"c": NaN}]}' in broken
    assert b'{"a": 1, "b": "\xff"}' in broken


def test_strict_json_takes_or_refuses_all_of_it() -> None:
    taken = 0
    bodies = [broken for body in valid_bodies("u", "i").values() for broken in broken_fields(body)]
    for body in (*bodies, *WHOLE):
        try:
            check_json(body)
        except NotStrict:
            continue
        json.loads(body)  # and what is taken is JSON to others
        taken += 1
    assert 0.3 < taken / len(bodies) < 0.8


def test_there_are_enough_and_bodies_that_are_too_large() -> None:
    found = list(requests(valid_bodies("u", "i"), "Bearer x"))
    assert len(found) > 2000 and len({route for route, _ in found}) > 8
    assert any(len(sent) > MAX_BODY_BYTES for _, sent in found)
