"""Prompts that would be too long: what goes first, what is left, and what cannot be cut."""

import time

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from optirag_core.data.histories import Shown
from optirag_core.errors import PromptTooLong
from optirag_core.prompting.builder import MIN_ENTRIES, Context, PromptBuilder

from .conftest import READER, SETTINGS, item
from .texts import entries_of, numbered, shown, texts

ENDLESS = "An endless title " * 60_000
"""1 MB."""


@pytest.mark.parametrize("tokenizer", ["byte_tokenizer", "llama_tokenizer"])
@pytest.mark.parametrize("title", [ENDLESS, "x" * 2**20, "\U0001f600" * 2**18], ids=["words", "one word", "emoji"])
def test_a_title_of_a_megabyte_takes_no_time_and_no_room(request, tokenizer, title):
    builder = PromptBuilder(
        SETTINGS["generic"], request.getfixturevalue(tokenizer), {**numbered(9), "endless": item(title)}
    )
    started = time.perf_counter()
    with pytest.raises(PromptTooLong):
        builder.build(Context(READER, shown(1, 2)), ["endless"])
    prompt = builder.build(Context(READER, [*shown(1, 2), Shown("endless", 3.0)]), ["i8"])
    assert time.perf_counter() - started < 1.0
    assert prompt.group == builder.build(Context(READER, shown(1, 2)), ["i8"]).group
    assert prompt.num_dropped_entries == 1


def test_only_what_cannot_fit_is_cut(byte_tokenizer):
    """A title as long as the limit allows is encoded to its end."""
    settings = SETTINGS["generic"].model_copy(update={"max_tokens": 3_000})
    title = "y" * 2_000
    builder = PromptBuilder(settings, byte_tokenizer, {"long": item(title)})
    [suffix] = builder.build(Context(READER, []), ["long"]).group.suffixes
    assert title in byte_tokenizer.decode(suffix)


def cut(tokenizer, room, *, history, similar, num_candidates=1):
    """A prompt for which `room` prefix tokens are left."""
    items = numbered(40)
    candidates = [f"i{30 + number}" for number in range(num_candidates)]
    builder = PromptBuilder(SETTINGS["generic"], tokenizer, items)
    context = Context(READER, shown(*history), [(READER, shown(*user)) for user in similar])
    longest = max(map(len, builder.build(context, candidates).group.suffixes))
    settings = SETTINGS["generic"].model_copy(update={"max_tokens": room + longest})
    return PromptBuilder(settings, tokenizer, items).build(context, candidates)


HISTORY, SIMILAR = (0, 1, 2, 3, 4, 5), [(10, 11, 12, 13), (14, 15, 16, 17)]


def shown_titles(prompt, tokenizer):
    return [[int(title.split()[1]) for title in user] for user in entries_of(texts(prompt, tokenizer)[0])]


def test_a_prompt_that_just_fits_is_whole(byte_tokenizer):
    context = {"history": (0, 1, 2), "similar": [(3, 4)]}
    room = len(cut(byte_tokenizer, 1_500, **context).group.prefix)
    # In the sum the last entry counts as an earlier one, which has a comma: 1 token, for each of 2 users.
    assert cut(byte_tokenizer, room + 2, **context).num_dropped_entries == 0
    assert cut(byte_tokenizer, room + 1, **context).num_dropped_users == 1


def test_oldest_entries_of_the_longest_history_go_first(byte_tokenizer):
    """6 + 4 + 4 entries: the target's two oldest, then one of each, the least similar user first."""
    expected = [
        (list(HISTORY[1:]), [*SIMILAR]),
        (list(HISTORY[2:]), [*SIMILAR]),
        (list(HISTORY[2:]), [SIMILAR[0], SIMILAR[1][1:]]),
        (list(HISTORY[2:]), [SIMILAR[0][1:], SIMILAR[1][1:]]),
        (list(HISTORY[3:]), [SIMILAR[0][1:], SIMILAR[1][1:]]),
        (list(HISTORY[3:]), [SIMILAR[0][1:]]),
        (list(HISTORY[3:]), []),
    ]
    seen = []
    full = len(cut(byte_tokenizer, 10_000, history=HISTORY, similar=SIMILAR).group.prefix)
    for room in range(full, 0, -15):  # an entry has about 45 tokens
        try:
            prompt = cut(byte_tokenizer, room, history=HISTORY, similar=SIMILAR)
        except PromptTooLong:
            break
        *similar, history = shown_titles(prompt, byte_tokenizer)
        state = (history, [tuple(user) for user in similar])
        if state != (seen[-1][0] if seen else (list(HISTORY), SIMILAR)):
            seen.append((state, prompt))
        assert len(prompt.group.prefix) <= room
    assert [state for state, _ in seen] == expected
    dropped = [(p.num_dropped_entries, p.num_dropped_users, p.num_similar_users) for _, p in seen]
    assert dropped == [(1, 0, 2), (2, 0, 2), (3, 0, 2), (4, 0, 2), (5, 0, 2), (8, 1, 1), (11, 2, 0)]
    assert MIN_ENTRIES == 3


def test_the_longest_suffix_counts(byte_tokenizer):
    items = {**numbered(9), "long": item("A very long title " * 2)}
    builder = PromptBuilder(SETTINGS["books"], byte_tokenizer, items)
    context = Context(READER, shown(1, 2, 3, 4, 5))
    short, long = builder.build(context, ["i8", "long"]).group.suffixes
    prefix = len(builder.build(context, ["i8"]).group.prefix)
    settings = SETTINGS["books"].model_copy(update={"max_tokens": prefix + len(short) + 2})
    builder = PromptBuilder(settings, byte_tokenizer, items)
    assert builder.build(context, ["i8"]).num_dropped_entries == 0
    prompt = builder.build(context, ["i8", "long"])
    assert prompt.num_dropped_entries > 0
    assert len(prompt.group.prefix) + len(long) <= settings.max_tokens


@examples(max_examples=60, deadline=None)
@given(
    history=st.lists(st.integers(0, 29), max_size=8),
    similar=st.lists(st.lists(st.integers(0, 29), min_size=1, max_size=8), max_size=4),
    room=st.integers(200, 1_500),
)
def test_a_cut_prompt_is_the_prompt_of_what_is_left(byte_tokenizer, history, similar, room):
    try:
        prompt = cut(byte_tokenizer, room, history=history, similar=similar)
    except PromptTooLong:
        return
    *users, target = shown_titles(prompt, byte_tokenizer)
    assert len(prompt.group.prefix) <= room
    assert target == history[len(history) - len(target) :]
    assert len(target) >= min(MIN_ENTRIES, len(history))
    for left, before in zip(users, similar, strict=False):
        assert left == before[len(before) - len(left) :]
        assert len(left) >= min(MIN_ENTRIES, len(before))
    assert prompt.num_similar_users == len(users) == len(similar) - prompt.num_dropped_users
    assert prompt.num_dropped_entries == len(history) + sum(map(len, similar)) - len(target) - sum(map(len, users))
    whole = cut(byte_tokenizer, 10_000, history=target, similar=users)
    assert prompt.group == whole.group
    assert prompt.rating_positions == whole.rating_positions


def test_too_long_at_its_shortest(byte_tokenizer):
    with pytest.raises(
        PromptTooLong, match=r"prompt of user 'u' has \d+ prefix tokens at its shortest, 300 are left of"
    ):
        cut(byte_tokenizer, 300, history=HISTORY, similar=SIMILAR)
