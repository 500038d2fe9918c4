"""Requests -> prompts with a real index: who and what is shown, which pairs are rejected, one by one or together."""

import random
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from optirag_core.config.data import DatasetSettings, PromptSettings
from optirag_core.data.histories import Histories
from optirag_core.data.loading import load_raw
from optirag_core.data.rows import Rows
from optirag_core.data.schema import REQUESTS
from optirag_core.data.splits import requests_for, split_interactions
from optirag_core.prompting.assembly import PromptAssembler, Request, requests_from
from optirag_core.prompting.builder import PromptBuilder
from optirag_core.retrieval.index import Neighbour

from .small import LONG, SETTINGS, SIMILAR, TARGET, assembler, prefix_text, timed


def test_histories_are_as_long_as_the_settings_say(byte_tokenizer):
    settings = SETTINGS.model_copy(update={"max_history": 2, "max_similar_history": 3})
    rows = [*((user, f"{user}{n}", 4, "train") for user in "ab" for n in range(6))]
    text = prefix_text(byte_tokenizer, rows, Request("a", ["q0"]), settings=settings)
    shown = [f"{user}{n}" for user in "ba" for n in range(6) if f"Title of {user}{n} " in text]
    assert shown == ["b3", "b4", "b5", "a4", "a5"]


def test_similar_users_come_most_similar_first_without_the_user(byte_tokenizer):
    rows = [*TARGET, ("b", "i7", 4, "train"), ("c", "i8", 4, "train")]
    [result] = assembler(byte_tokenizer, rows).assemble([Request("a", ["q0"])])
    assert [neighbour.user_id for neighbour in result.similar_users] == ["b", "c"]
    text = byte_tokenizer.decode(result.prompt.group.prefix)
    assert text.index("1. The user rated") < text.index("Title of i7") < text.index("2. ") < text.index("Title of i8")
    assert (result.cold_start, result.prompt.num_similar_users) == (False, 2)
    text = prefix_text(byte_tokenizer, rows, Request("a", ["q0"]), num_similar_users=1)
    assert "Title of i8" not in text


def test_a_similar_user_without_a_past_is_left_out(byte_tokenizer):
    rows = [*timed([*TARGET, ("c", "i8", 4, "train")]), ("b", "i7", 4, "train", 2_000)]
    [result] = assembler(byte_tokenizer, rows).assemble([Request("a", ["q0"], as_of=1_000)])
    text = byte_tokenizer.decode(result.prompt.group.prefix)
    assert result.prompt.num_similar_users == 1
    assert "1. The user rated the following items: [ 'Title of i8" in text
    assert "2. " not in text


@pytest.mark.parametrize("user", ["a", "nobody"])
def test_a_user_the_index_lacks_gets_a_prompt_and_the_flag(byte_tokenizer, user):
    [result] = assembler(byte_tokenizer, [*TARGET, *SIMILAR], users=("b", "c")).assemble([Request(user, ["q0"])])
    text = byte_tokenizer.decode(result.prompt.group.prefix)
    assert result.cold_start
    assert list(result.candidates) == ["q0"]
    assert result.prompt.num_similar_users == 0
    assert "similar users:" not in text
    assert ("Title of i3" in text) is (user == "a")


def test_similar_users_can_be_left_out(byte_tokenizer):
    [result] = assembler(byte_tokenizer, [*TARGET, *SIMILAR]).assemble([Request("a", ["q0"])], similar=False)
    assert result.prompt.num_similar_users == 0
    assert not result.cold_start
    [cold] = assembler(byte_tokenizer, TARGET, users=("b", "c")).assemble([Request("a", ["q0"])])
    assert result.prompt.group == cold.prompt.group


def test_rejects_say_why(byte_tokenizer):
    asked = ["q0", None, "gone", "q0", "q1", None, "gone"]
    [result] = assembler(byte_tokenizer, TARGET).assemble([Request("a", asked)])
    assert list(result.candidates) == ["q0", "q1"]
    assert len(result.prompt.group.suffixes) == 2
    assert [(reject.item_id, reject.error_code) for reject in result.rejects] == [
        (None, "null_item"),
        ("gone", "unknown_item"),
        ("q0", "duplicate_pair"),
        (None, "null_item"),
        ("gone", "duplicate_pair"),
    ]
    assert "item 'gone' is not in the items table" in [reject.error for reject in result.rejects]
    assert len(result.candidates) + len(result.rejects) == len(asked)


def test_suffixes_are_those_of_the_candidates(byte_tokenizer):
    [result] = assembler(byte_tokenizer, TARGET).assemble([Request("a", ["q1", None, "i6", "q0"])])
    for candidate, suffix in zip(result.candidates, result.prompt.group.suffixes, strict=True):
        assert f"***Title of {candidate}***" in byte_tokenizer.decode(suffix)


def test_too_long_a_prompt_rejects_all_its_pairs_and_no_others(byte_tokenizer):
    settings = SETTINGS.model_copy(update={"max_tokens": 700})
    rows = [*TARGET, *(("c", f"{number} {'long ' * 80}", 4, "train") for number in range(4))]
    results = assembler(byte_tokenizer, rows, settings=settings, num_similar_users=0).assemble(
        [Request("c", ["q0", None, "q1"]), Request("a", ["q0"])]
    )
    assert results[0].prompt is None
    assert list(results[0].candidates) == []
    codes = [(reject.item_id, reject.error_code) for reject in results[0].rejects]
    assert codes == [(None, "null_item"), ("q0", "prompt_too_long"), ("q1", "prompt_too_long")]
    assert "prompt.max_tokens 700" in results[0].rejects[1].error
    assert list(results[1].candidates) == ["q0"]


def test_one_endless_candidate_costs_only_itself(byte_tokenizer):
    rows = [*TARGET, ("b", LONG, 4, "train"), ("b", "x" * 2_500, 4, "train")]
    settings = SETTINGS.model_copy(update={"max_tokens": 2_000})
    tested = assembler(byte_tokenizer, rows, settings=settings)
    [result] = tested.assemble([Request("a", ["q0", LONG, "q1", "x" * 2_500])])
    [without] = tested.assemble([Request("a", ["q0", "q1"])])
    assert result.prompt == without.prompt
    assert list(result.candidates) == ["q0", "q1"]
    codes = [(reject.item_id, reject.error_code) for reject in result.rejects]
    assert codes == [(LONG, "prompt_too_long"), ("x" * 2_500, "prompt_too_long")]
    assert max(len(reject.error) for reject in result.rejects) < 300


def test_an_endless_title_in_a_history_is_dropped(byte_tokenizer):
    rows = [*TARGET, ("a", LONG, 4, "train"), *SIMILAR, ("b", LONG, 4, "train")]
    settings = SETTINGS.model_copy(update={"max_tokens": 2_000})
    [result] = assembler(byte_tokenizer, rows, settings=settings).assemble([Request("a", ["q0"])])
    [without] = assembler(byte_tokenizer, [*TARGET, *SIMILAR], settings=settings).assemble([Request("a", ["q0"])])
    assert result.prompt.group == without.prompt.group
    assert result.prompt.num_dropped_entries == 2


def test_a_similar_user_of_whom_nothing_can_be_shown_is_not_shown(byte_tokenizer):
    settings = SETTINGS.model_copy(update={"max_tokens": 2_000})
    [result] = assembler(byte_tokenizer, [*TARGET, ("b", LONG, 4, "train")], settings=settings).assemble(
        [Request("a", ["q0"])]
    )
    assert (result.prompt.num_similar_users, result.prompt.num_dropped_users) == (0, 1)
    assert "[ ]" not in byte_tokenizer.decode(result.prompt.group.prefix)


def test_a_request_without_user_or_items(byte_tokenizer):
    results = assembler(byte_tokenizer, TARGET).assemble([Request(None, ["q0", None, "q0"]), Request("a", None)])
    assert [result.prompt for result in results] == [None, None]
    assert [(reject.item_id, reject.error_code) for reject in results[0].rejects] == [
        ("q0", "null_user"),
        (None, "null_user"),
        ("q0", "null_user"),
    ]
    assert list(results[1].rejects) == []


def test_a_pair_asked_again_in_another_row_is_rejected(byte_tokenizer):
    """Also where the first was refused for another reason; another user's is another pair."""
    requests = [
        Request("a", ["q0", "gone"]), Request("a", ["q0", "q1", "gone", None], as_of_position=2),
        Request("b", ["q0"]), Request("a", ["q1"]),
    ]  # fmt: skip
    results = assembler(byte_tokenizer, TARGET).assemble(requests)
    assert [list(result.candidates) for result in results] == [["q0"], ["q1"], ["q0"], []]
    codes = [[(reject.item_id, reject.error_code) for reject in result.rejects] for result in results]
    assert codes == [
        [("gone", "unknown_item")],
        [("q0", "duplicate_pair"), ("gone", "duplicate_pair"), (None, "null_item")],
        [],
        [("q1", "duplicate_pair")],
    ]


POISON = [
    "", " ", "\x00", "a\x00b", "\n\n", "\U0001f600", "{{ 7 * 7 }}", "{% endmacro %}", "{{ user.__class__ }}", "***",
    "</s>", "']", "../../etc/passwd", "\u202e", "\ufeff", "NULL", "%s%n", LONG,
]  # fmt: skip


@pytest.mark.parametrize("known", [True, False], ids=["known item", "unknown item"])
@pytest.mark.parametrize("text", POISON, ids=lambda text: ascii(text[:20]))
def test_odd_ids_and_titles_neither_crash_nor_touch_their_neighbours(byte_tokenizer, text, known):
    rows = [*TARGET, *SIMILAR]
    tested = assembler(byte_tokenizer, [*rows, (text, text, 4, "train")] if known else rows)
    [odd, *good] = tested.assemble([Request(text, [text, "q0"]), Request("a", [text, "q0"]), Request("a", ["q1"])])
    expected = assembler(byte_tokenizer, rows).assemble([Request("a", ["q0"]), Request("a", ["q1"])])
    for result, clean in zip(good, expected, strict=True):
        assert result.prompt.group.prefix == clean.prompt.group.prefix
        assert result.prompt.group.suffixes[-1] == clean.prompt.group.suffixes[-1]
    for result in (odd, good[0]):
        assert [*result.candidates, *(reject.item_id for reject in result.rejects)].count(text) == 1
        assert result.candidates[-1] == "q0"
        codes = [reject.error_code for reject in result.rejects]
        assert codes == ([] if known and text != LONG else ["prompt_too_long" if known else "unknown_item"])
        assert all(len(reject.error) < 300 for reject in result.rejects)


def test_a_time_of_request_needs_times(byte_tokenizer):
    """Showing everything instead would show what came later."""
    request = Request("a", ["q0", "q1"], as_of=1_000)
    [refused] = assembler(byte_tokenizer, [*TARGET, *SIMILAR]).assemble([request])
    [scored] = assembler(byte_tokenizer, timed([*TARGET, *SIMILAR])).assemble([request])
    assert refused.prompt is None
    assert [(reject.item_id, reject.error_code) for reject in refused.rejects] == [
        ("q0", "as_of_without_times"),
        ("q1", "as_of_without_times"),
    ]
    assert list(scored.candidates) == ["q0", "q1"]


def test_a_request_without_a_usable_item_has_no_prompt(byte_tokenizer):
    results = assembler(byte_tokenizer, TARGET).assemble([Request("a", []), Request("a", [None])])
    assert [result.prompt for result in results] == [None, None]
    assert [len(result.rejects) for result in results] == [0, 1]


def test_many_requests_equal_one_by_one(byte_tokenizer):
    requests = [Request("a", ["q0"]), Request("nobody", ["q1"]), Request("b", ["q0", "q0"], as_of_position=2)]
    together = assembler(byte_tokenizer, [*TARGET, *SIMILAR]).assemble(requests)
    for request, result in zip(requests, together, strict=True):
        assert [result] == assembler(byte_tokenizer, [*TARGET, *SIMILAR]).assemble([request])


def test_requests_of_a_table():
    row = {"user_id": "a", "item_ids": ["x", None], "as_of": datetime(1970, 1, 1, 0, 0, 1, 7, UTC), "as_of_position": 3}
    table = pa.Table.from_pylist([row, {"user_id": "b", "item_ids": []}], schema=REQUESTS)
    assert requests_from(table) == [Request("a", ["x", None], 1_000_007, 3), Request("b", [], None, None)]


class RandomUsers:
    """Neighbours drawn at random from a population."""

    def __init__(self, user_ids):
        self._user_ids = user_ids
        self._random = random.Random(0)

    def __contains__(self, user_id):
        return user_id in self._user_ids

    def similar_batch(self, user_ids, k):
        drawn = [self._random.sample(self._user_ids, k + 1) for _ in user_ids]
        return [
            [Neighbour(other, 0.0) for other in others if other != user_id][:k]
            for user_id, others in zip(user_ids, drawn, strict=True)
        ]


def test_lengths_of_real_prompts(real_data, llama_tokenizer):
    """The books prompt with 4 similar users and up to 15 entries each has about 1,063 Llama tokens.

    Population: users with a test sample (at least 3 past explicit ratings), similar users drawn at random among those
    with at least 4 training ratings. Measured on 300 of them: 1,094 on average, p99 1,545, longest 1,629.
    """
    settings = DatasetSettings(
        source="bookcrossing", path="", explicit_only=True, like_threshold=7, split={"method": "leave_last_out"}
    )
    raw = load_raw(settings, folder=real_data("bookcrossing"))
    table, _ = split_interactions(raw.ratings, settings, seed=0)
    train = Counter(table.filter(pc.equal(table["split"], "train"))["user_id"].to_pylist())
    similar = RandomUsers([user for user, count in train.items() if count >= 4])
    prompts = PromptSettings(template="books")
    builder = PromptBuilder(prompts, llama_tokenizer, Rows.of(raw.items, "item"))
    histories, users = Histories.of(table), Rows.of(raw.users, "user")
    requests = requests_for(table, "test")
    chosen = requests.take(np.random.default_rng(0).choice(len(requests), 300, replace=False))

    tested = PromptAssembler(histories, users, similar, builder, prompts, num_similar_users=4)
    results = tested.assemble(requests_from(chosen))

    lengths = [len(result.prompt.group.prefix) + len(result.prompt.group.suffixes[0]) for result in results]
    assert builder.answer_ids == (4874, 694)
    assert {result.prompt.num_similar_users for result in results} == {4}
    assert not any(result.prompt.num_dropped_entries for result in results)
    assert np.mean(lengths) == pytest.approx(1_063, rel=0.1)
    assert np.percentile(lengths, 99) == pytest.approx(1_544, rel=0.1)
