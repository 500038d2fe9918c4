"""Each leak rule of prompts with a leak that is planted, and the same row as a control."""

import pytest

from optirag_core.data.histories import Shown
from optirag_core.data.schema import SPLITS
from optirag_core.prompting.assembly import Request
from optirag_core.prompting.builder import Context

from .conftest import FAMILIES, item, whole_prompt
from .small import PLANTED, SETTINGS, SIMILAR, TARGET, assembler, prefix_text, timed


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
@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.parametrize("family", FAMILIES)
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
