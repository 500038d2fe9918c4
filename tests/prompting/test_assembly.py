"""Requests -> prompts with a real index; each leak rule with a leak that is planted, and the same row as a control."""

import random
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from optirag_core.config import DatasetSettings, PromptSettings
from optirag_core.data.histories import Histories, Shown
from optirag_core.data.loading import load_raw
from optirag_core.data.rows import Rows
from optirag_core.data.schema import REQUESTS, SPLITS
from optirag_core.data.splits import requests_for, split_interactions
from optirag_core.prompting.assembly import PromptAssembler, Request, requests_from
from optirag_core.prompting.builder import Context, PromptBuilder
from optirag_core.retrieval.index import Neighbour, UserIndex

from .conftest import interactions, item, whole_prompt

SETTINGS = PromptSettings(template="generic", max_tokens=10_000)
PLANTED = "Planted Title"
LONG = "endless " * 2**17
"""1 MB."""
TARGET = [("a", f"i{number}", 4, "train") for number in range(4)]
SIMILAR = [("b", f"i{number}", 2, "train") for number in range(2, 7)]
ANGLES = {"a": 0.0, "b": 0.1, "c": 0.3}
"""Users on a circle: b is most similar to a, then c."""


def index_of(users):
    vectors = torch.tensor([[np.cos(ANGLES[user]), np.sin(ANGLES[user])] for user in users], dtype=torch.float32)
    return UserIndex.build(pa.array(users), vectors, "Flat")


def assembler(tokenizer, rows, *, users=("a", "b", "c"), settings=SETTINGS, num_similar_users=2):
    table = interactions(*rows)
    ids = sorted({*table["item_id"].to_pylist(), "q0", "q1"})
    titles = [PLANTED if item_id == "planted" else f"Title of {item_id}" for item_id in ids]
    nothing = pa.nulls(len(ids), pa.string())
    items = pa.table({"item_id": ids, "title": titles, "city": nothing, "state": nothing, "price": nothing})
    profiles = pa.table({"user_id": ["a", "b", "c"], "joined": ["2001-01-01", None, "2003-03-03"]})
    profiles = profiles.append_column("location", pa.nulls(3, pa.string())).append_column("age", pa.nulls(3))
    builder = PromptBuilder(settings, tokenizer, Rows.of(items, "item"))
    histories, profiles = Histories.of(table), Rows.of(profiles, "user")
    return PromptAssembler(histories, profiles, index_of(users), builder, settings, num_similar_users=num_similar_users)


def prefix_text(tokenizer, rows, request, **options):
    [assembled] = assembler(tokenizer, rows, **options).assemble([request])
    return tokenizer.decode(assembled.prompt.group.prefix)


def timed(rows, start=100):
    """The same rows, 100 microseconds apart within each user."""
    counts = {}
    result = []
    for user, *rest in rows:
        counts[user] = counts.get(user, 0) + 1
        result.append((user, *rest, start * counts[user]))
    return result


@pytest.mark.parametrize(
    ("time", "seen"), [(999, True), (1_000, False), (1_001, False)], ids=["before", "at the same moment", "after"]
)
@pytest.mark.parametrize("user", ["a", "b"])
def test_nothing_at_or_after_the_request_is_shown(byte_tokenizer, user, time, seen):
    rows = [*timed([*TARGET, *SIMILAR]), (user, "planted", 5, "train", time)]
    text = prefix_text(byte_tokenizer, rows, Request("a", ["q0"], as_of=1_000))
    assert (PLANTED in text) is seen
    assert "Title of i0" in text
    assert "Title of i6" in text


@pytest.mark.parametrize(("position", "seen"), [(5, True), (4, False), (3, False)])
def test_nothing_of_the_target_at_or_after_the_position_is_shown(byte_tokenizer, position, seen):
    rows = [*TARGET, ("a", "planted", 5, "test"), *SIMILAR]
    text = prefix_text(byte_tokenizer, rows, Request("a", ["q0"], as_of_position=position))
    assert (PLANTED in text) is seen
    assert "Title of i0" in text


@pytest.mark.parametrize(
    ("position", "seen"), [(4, False), (5, True), (6, True)], ids=["at 1000", "at 2000", "beyond the last"]
)
def test_a_position_alone_cuts_similar_users_at_its_moment(byte_tokenizer, position, seen):
    own = [*timed(TARGET), ("a", "q1", 5, "test", 1_000), ("a", "i9", 5, "test", 2_000)]
    rows = [*own, *timed(SIMILAR), ("b", "planted", 5, "train", 1_000)]
    text = prefix_text(byte_tokenizer, rows, Request("a", ["q0"], as_of_position=position))
    assert (PLANTED in text) is seen
    assert "Title of i6" in text
    stranger = prefix_text(byte_tokenizer, rows, Request("c", ["q0"], as_of_position=0))
    assert PLANTED in stranger


@pytest.mark.parametrize("split", ["train", "tune", "validation", "test"])
def test_of_similar_users_only_training_rows_are_shown(byte_tokenizer, split):
    rows = [*TARGET, *SIMILAR, ("b", "planted", 5, split)]
    assert (PLANTED in prefix_text(byte_tokenizer, rows, Request("a", ["q0"]))) is (split == "train")
    rows = [*timed([*TARGET, *SIMILAR]), ("b", "planted", 5, split, 900)]
    assert (PLANTED in prefix_text(byte_tokenizer, rows, Request("a", ["q0"], as_of=1_000))) is (split == "train")


@pytest.mark.parametrize("split", ["train", "tune", "validation", "test"])
def test_the_target_own_past_is_shown_whatever_its_split(byte_tokenizer, split):
    rows = [*TARGET, ("a", "planted", 5, split), *SIMILAR]
    assert PLANTED in prefix_text(byte_tokenizer, rows, Request("a", ["q0"], as_of_position=5))


YELP = SETTINGS.model_copy(update={"template": "yelp"})


def test_a_mean_of_ratings_is_that_before_the_request(byte_tokenizer):
    """b rated 1 before the request, and 1, 5, 5 and seven times 4, 3.9 on average, in all."""
    later = [("b", f"j{number}", rating, "train", 2_000) for number, rating in enumerate([5, 5, *[4] * 7])]
    rows = [("a", "i0", 2, "train", 100), ("a", "i1", 5, "train", 2_000), ("b", "i0", 1, "train", 100), *later]
    text = prefix_text(byte_tokenizer, rows, Request("a", ["q0"], as_of=1_000), settings=YELP)
    assert "The similar user joined Yelp at an unknown date. They rate at 1.00 stars on average." in text
    assert "The user joined Yelp in 2001-01-01. They rate at 2.00 stars on average." in text
    text = prefix_text(byte_tokenizer, rows, Request("a", ["q0"]), settings=YELP)
    assert "They rate at 3.90 stars on average." in text
    assert "They rate at 3.50 stars on average." in text
    text = prefix_text(byte_tokenizer, rows, Request("a", ["q0"], as_of=100), settings=YELP)
    assert text.count("They have rated too little for an average.") == 1  # b has nothing to show and is left out


@pytest.mark.parametrize(("candidates", "mean"), [(["q0"], "3.00"), (["i1"], "2.00"), (["i0", "i1"], None)])
def test_the_rating_of_a_candidate_is_in_no_mean(byte_tokenizer, candidates, mean):
    rows = [("a", "i0", 2, "train"), ("a", "i1", 4, "train")]
    text = prefix_text(byte_tokenizer, rows, Request("a", candidates), settings=YELP)
    assert ("rated too little" if mean is None else f"They rate at {mean} stars on average") in text


PAST = [*timed([*TARGET, *SIMILAR, ("c", "i8", 3, "train"), ("c", "i9", 1, "train")])]
FUTURES = {
    "none": [],
    "ratings of all": [(user, f"i{n}", 5, "train", 1_000 + n) for user in "abc" for n in range(20, 24)],
    "held-out ratings": [(user, "i20", 1, split, 1_000) for user, split in zip("abc", SPLITS[1:], strict=True)],
    "a planted title": [(user, "planted", 1, "train", 5_000) for user in "abc"],
}


@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize("family", ["books", "amazon", "yelp", "generic"])
def test_prompts_do_not_depend_on_the_future(byte_tokenizer, family, future):
    """Two data sets that agree before the request give the same tokens."""
    settings = SETTINGS.model_copy(update={"template": family})
    [without, planted] = [
        assembler(byte_tokenizer, [*PAST, *rows], settings=settings).assemble([Request("a", ["q0", "q1"], as_of=1_000)])
        for rows in ([], FUTURES[future])
    ]
    assert planted == without
    assert without[0].prompt.num_similar_users == 2


def test_the_future_would_show_without_a_time(byte_tokenizer):
    """The control of the test before: the same futures change the prompt of a request that may know them."""
    texts = {
        prefix_text(byte_tokenizer, [*PAST, *rows], Request("a", ["q0"]), settings=YELP) for rows in FUTURES.values()
    }
    assert len(texts) == len(FUTURES)


@pytest.mark.parametrize("family", ["books", "amazon", "yelp", "generic"])
def test_a_prompt_equals_its_plain_form(byte_tokenizer, family):
    """Pieces in the paper's order; histories and profiles picked from the rows by hand."""
    settings = SETTINGS.model_copy(update={"template": family})
    [assembled] = assembler(byte_tokenizer, PAST, settings=settings).assemble([Request("a", ["q0"], as_of=400)])
    mine, b, c = (
        [Shown(item_id, rating) for user, item_id, rating, _, time in PAST if user == wanted and time < 400]
        for wanted in "abc"
    )
    profile = {"location": None, "age": None}
    context = Context(
        user={**profile, "joined": "2001-01-01", "mean_stars": 4.0},
        history=mine,
        similar=[
            ({**profile, "joined": None, "mean_stars": 2.0}, b),
            ({**profile, "joined": "2003-03-03", "mean_stars": 2.0}, c),
        ],
    )
    items = {name: item(f"Title of {name}", city=None, price=None) for name in ["q0", *(row[1] for row in PAST)]}
    [suffix] = assembled.prompt.group.suffixes
    text = byte_tokenizer.decode([*assembled.prompt.group.prefix, *suffix]).removeprefix("<s>")
    assert text == "".join(whole_prompt(settings, items, context, "q0"))


@pytest.mark.parametrize(("candidates", "seen"), [(["q0"], True), (["planted"], False), (["q0", "planted"], False)])
def test_a_candidate_is_never_in_the_target_history(byte_tokenizer, candidates, seen):
    """Even where it lies in the past, and for every candidate of the request: they share one prefix."""
    rows = [("a", "planted", 5, "train"), *TARGET]
    assert (PLANTED in prefix_text(byte_tokenizer, rows, Request("a", candidates))) is seen


def test_what_a_similar_user_thought_of_the_candidate_is_shown(byte_tokenizer):
    rows = [*TARGET, *SIMILAR, ("b", "planted", 5, "train")]
    assert f"{PLANTED} (rating 5)" in prefix_text(byte_tokenizer, rows, Request("a", ["planted"]))


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
