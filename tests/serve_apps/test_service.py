"""The endpoint without its HTTP: answers, events, overload."""

import asyncio
import time
import uuid

import pyarrow as pa
import pytest

from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.engine.loading import load_tokenizer
from optirag_core.errors import OptiragError
from optirag_core.inference.explain import prompt_sha256
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import open_assembler, open_scorer
from optirag_core.inference.prompts import assembled_prompts, groups_of
from optirag_core.inference.requests import test_requests as requests_of_the_test_split
from serve_apps import schemas
from serve_apps.calls import Call, Context, NamedRequest
from serve_apps.contexts import ContextBuilder
from serve_apps.scoring import ScorerReplica
from serve_apps.service import Service, Unanswered
from serve_apps.version import Version
from tests.finished_run import changed
from tests.serve_apps.conftest import run

pytestmark = pytest.mark.ray

MANY = 64


@pytest.fixture(scope="module")
def dataset(own_workspace: Settings) -> Dataset:
    return Dataset.load(open_artifacts(own_workspace, "dataset")["dataset"].path)


@pytest.fixture(scope="module")
def items(dataset: Dataset) -> list[str]:
    return dataset.items["item_id"].to_pylist()


@pytest.fixture(scope="module")
def user_id(dataset: Dataset) -> str:
    """With a long history."""
    counts = dataset.interactions.group_by("user_id").aggregate([("item_id", "count")])
    return counts.sort_by([("item_id_count", "descending")])["user_id"][0].as_py()


def events(user_id: str, item_ids: list[str], rating: float = 9.0) -> schemas.InteractionsRequest:
    made = [
        schemas.Interaction(event_id=str(uuid.uuid4()), user_id=user_id, item_id=item_id, rating=rating)
        for item_id in item_ids
    ]
    return schemas.InteractionsRequest(events=made)


def ask(user_id: str, item_ids: list[str], **more: object) -> schemas.ScoreRequest:
    return schemas.ScoreRequest(user_id=user_id, item_ids=item_ids, **more)


def test_every_request_of_the_test_split_gets_the_batch_jobs_prompts_and_scores(
    service: Service, own_workspace: Settings, dataset: Dataset
):
    artifacts = open_artifacts(own_workspace, *TRAINED)
    requests = requests_of_the_test_split(dataset, None, 0).slice(0, 40)
    assembler, _ = open_assembler(own_workspace, artifacts, load_tokenizer(artifacts["llm"].path))
    prompts = assembled_prompts(assembler, requests)
    groups = groups_of(prompts)
    batch = open_scorer(own_workspace, artifacts).score(groups).scores

    async def all_at_once() -> list[schemas.ScoreAnswer]:
        return await asyncio.gather(*(service.score(asked_like(row)) for row in requests.to_pylist()))

    for row, group, pairs, answer in zip(prompts.to_pylist(), groups, batch, run(all_at_once()), strict=True):
        scored = [item for item in answer.items if item.problem is None]
        assert [item.item_id for item in scored] == row["item_ids"]
        for item, pair, suffix in zip(scored, pairs, group.suffixes, strict=True):
            assert item.explanation.prompt_sha256 == prompt_sha256(group.prefix, suffix)
            assert item.score == pytest.approx(pair.score, abs=1e-5)
            assert item.exit_layer == pair.exit_layer
        assert (answer.cold_start, answer.num_similar_users) == (row["cold_start"], row["num_similar_users"])


def asked_like(row: dict) -> schemas.ScoreRequest:
    return ask(
        row["user_id"], row["item_ids"], as_of=row["as_of"], as_of_position=row["as_of_position"], explain=True
    )  # fmt: skip


def test_items_come_in_the_order_asked_and_each_has_a_score_or_a_problem(
    service: Service, user_id: str, items: list[str]
):
    asked = [items[3], "no such item", items[1], items[3]]
    answer = run(service.score(ask(user_id, asked)))
    assert [item.item_id for item in answer.items] == asked
    assert [item.problem and item.problem.code for item in answer.items] == [
        None, "unknown_item", None, "duplicate_pair"
    ]  # fmt: skip
    assert answer.items[0].score is not None and answer.items[3].score is None
    assert answer.model_version.count("+") == 1 and answer.policy == "normal"


def test_rank_puts_the_best_first_and_cuts(service: Service, user_id: str, items: list[str]):
    asked = schemas.RankRequest(user_id=user_id, item_ids=["no such item", *items[:20]], top_k=5)
    answer = run(service.rank(asked))
    scores = [item.score for item in answer.items[:5]]
    assert scores == sorted(scores, reverse=True) and len(answer.items) == 6
    assert answer.items[5].problem.code == "unknown_item"
    alone = run(service.score(ask(user_id, items[:20])))
    assert scores[0] == pytest.approx(max(item.score for item in alone.items), abs=1e-5)


def test_recommendations_are_new_to_the_user(service: Service, user_id: str, dataset: Dataset):
    mine = dataset.interactions.filter(pa.compute.equal(dataset.interactions["user_id"], user_id))["item_id"]
    answer = run(service.recommend(schemas.RecommendRequest(user_id=user_id, top_k=4, num_candidates=12)))
    assert len(answer.items) == 4 and all(item.score is not None for item in answer.items)
    assert not {item.item_id for item in answer.items} & set(mine.to_pylist())


def test_a_new_user_is_cold_and_personal_from_the_first_rating_on(service: Service, items: list[str]):
    before = run(service.score(ask("somebody new", items[:8])))
    assert before.cold_start and before.num_similar_users == 0
    stored = run(service.interactions(events("somebody new", items[20:24])))
    assert [outcome.status for outcome in stored.outcomes] == ["stored"] * 4
    after = run(service.score(ask("somebody new", items[:8])))
    assert not after.cold_start and after.num_similar_users > 0
    assert [item.score for item in before.items] != [item.score for item in after.items]
    known = run(service.user("somebody new"))
    assert [entry.item_id for entry in known.history] == items[20:24]


def test_an_inline_history_serves_this_call_alone(service: Service, items: list[str]):
    history = [schemas.HistoryEntry(item_id=item, rating=9.0) for item in [*items[30:33], "no such item"]]
    told = run(service.score(ask("a guest", items[:4], history=history)))
    assert not told.cold_start and told.unknown_entries == 1
    assert run(service.score(ask("a guest", items[:4]))).cold_start


def test_an_event_counts_once_and_its_id_names_one_event(service: Service, items: list[str]):
    once = events("twice", items[:2])
    assert [one.status for one in run(service.interactions(once)).outcomes] == ["stored", "stored"]
    assert [one.status for one in run(service.interactions(once)).outcomes] == ["duplicate", "duplicate"]
    other = once.events[0].model_copy(update={"rating": 1.0})
    [outcome] = run(service.interactions(schemas.InteractionsRequest(events=[other]))).outcomes
    assert outcome.status == "refused" and outcome.problem.code == "event_id_conflict"
    [unknown] = run(service.interactions(events("twice", ["no such item"]))).outcomes
    assert unknown.problem.code == "unknown_item"
    assert len(run(service.user("twice")).history) == 2


def test_events_survive_a_restart(service: Service, version: Version, items: list[str]):
    run(service.interactions(events("restarted", items[5:7])))
    again = ContextBuilder(version)
    known = run(again.user("restarted", 0))
    assert [entry.item_id for entry in known.history] == items[5:7]


def test_a_call_with_a_position_knows_what_another_replica_has_stored(
    service: Service, own_workspace: Settings, version: Version, scorer: ScorerReplica, items: list[str]
):
    slow = Version(changed(own_workspace, serving={"events_poll_s": 1000.0}).model_dump(mode="json"), version.pins)
    other = Service(scorer, ContextBuilder(slow), version, own_workspace.serving)
    stored = run(service.interactions(events("roaming", items[8:10])))
    assert run(other.score(ask("roaming", items[:2]))).cold_start
    assert not run(other.score(ask("roaming", items[:2], position=stored.position))).cold_start


def test_an_explanation_names_nobody_else(service: Service, user_id: str, dataset: Dataset, items: list[str]):
    answer = run(service.explain(user_id, items[0]))
    [item] = answer.items
    others = set(dataset.interactions["user_id"].to_pylist()) - {user_id}
    said = answer.model_dump_json()
    assert not [other for other in others if f'"{other}"' in said]
    assert len(item.explanation.similarities) == answer.num_similar_users
    assert [view.layer for view in item.explanation.layers] == [0, 3, 4, 5]
    assert item.explanation.layers[-1].score == pytest.approx(
        1 / (1 + 2.718281828 ** -(item.explanation.layers[-1].text_logit + item.explanation.layers[-1].evidence_logit)),
        abs=1e-4,
    )


def test_above_its_load_it_exits_earlier_and_then_refuses(
    own_workspace: Settings, version: Version, contexts: ContextBuilder, user_id: str, items: list[str]
):
    busy = changed(own_workspace, serving={"max_calls": 4, "overload_share": 0.5})
    version = Version(busy.model_dump(mode="json"), version.pins)
    service = Service(ScorerReplica(version), contexts, version, busy.serving)

    async def flood() -> list[object]:
        calls = [service.score(ask(user_id, items[:10])) for _ in range(MANY)]
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = run(flood())
    refused = [answer for answer in answers if isinstance(answer, Unanswered)]
    accepted = [answer for answer in answers if isinstance(answer, schemas.ScoreAnswer)]
    assert len(refused) + len(accepted) == MANY and refused and accepted
    assert {(one.status, one.problem.code, one.retry_after_s) for one in refused} == {(429, "overloaded", 1)}
    policies = {answer.policy for answer in accepted}
    has_second = "overload" in run(service.model()).policies
    assert policies == ({"normal", "overload"} if has_second else {"normal"})


class Recorded:
    """A context builder that notes which versions it was asked for."""

    def __init__(self, contexts: ContextBuilder) -> None:
        self.contexts, self.keys = contexts, []

    async def build(self, call: Call, version: Version) -> Context:
        self.keys.append(version.key)
        return await self.contexts.build(call, version)


def test_prompts_are_of_the_version_that_scores_them(
    own_workspace: Settings, version: Version, scorer: ScorerReplica, contexts: ContextBuilder, user_id: str,
    items: list[str],
):  # fmt: skip
    other = Version(changed(own_workspace, engine={"max_tokens_in_flight": 9000}).model_dump(mode="json"), version.pins)
    recorded = Recorded(contexts)
    answer = run(Service(scorer, recorded, other, own_workspace.serving).score(ask(user_id, items[:2])))
    assert recorded.keys == [other.key, version.key]
    assert all(item.score is not None for item in answer.items)


def test_another_version_is_closed_when_its_update_has_ended(
    own_workspace: Settings, version: Version, user_id: str, items: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("serve_apps.contexts.IDLE_S", 0.0)
    quick = Version(changed(own_workspace, serving={"events_poll_s": 0.1}).model_dump(mode="json"), version.pins)
    other = Version(changed(own_workspace, engine={"max_tokens_in_flight": 9000}).model_dump(mode="json"), version.pins)
    builder, call = ContextBuilder(quick), Call(NamedRequest(user_id, items[:2]))
    before = run(builder.build(call, other))
    deadline = time.monotonic() + 20
    while len(builder._opened) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(builder._opened) == [quick.key]
    assert run(builder.build(call, other)).group == before.group


def test_the_health_check_notices_a_wrong_score(version: Version):
    scorer = ScorerReplica(version)
    run(scorer.check_health())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "_expected", scorer._expected.__class__(0.123, 5, False))
        with pytest.raises(OptiragError, match="a known pair has a score of"):
            run(scorer.check_health())
