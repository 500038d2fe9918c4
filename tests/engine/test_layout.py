"""Packing on rows small enough to write down."""

import pytest

from optirag_core.engine.groups import UserGroup
from optirag_core.engine.layout import Layout, PackedGroup, Pair, Span, SuffixBatch, parts_of, split_prompts

#  tokens   0 1 2 | 3 4 | 5 6 | 7 | 8 9 10 | 11
#           prefix  a     b     -  prefix... (second group: prefix of 1, one suffix of 3, one of 1)
TWO_GROUPS = Layout(
    (
        PackedGroup(user_group=4, prefix=3, suffixes=(2, 2), candidates=(0, 1)),
        PackedGroup(user_group=7, prefix=1, suffixes=(1, 3), candidates=(1, 0)),
    )
)


def test_offsets_and_positions():
    assert TWO_GROUPS.starts == [0, 7, 12]
    assert TWO_GROUPS.num_tokens == 12
    assert TWO_GROUPS.positions.tolist() == [0, 1, 2, 3, 4, 3, 4, 0, 1, 1, 2, 3]
    assert TWO_GROUPS.pairs == [Pair(4, 0), Pair(4, 1), Pair(7, 1), Pair(7, 0)]


def test_all_queries():
    queries = TWO_GROUPS.all_queries

    first = SuffixBatch(query_start=3, key_start=3, count=2, queries=2, keys=2)
    second = SuffixBatch(query_start=8, key_start=8, count=1, queries=1, keys=1)
    third = SuffixBatch(query_start=9, key_start=9, count=1, queries=3, keys=3)
    assert queries.rows is None
    assert queries.spans == (
        Span(query_start=0, query_stop=7, prefix_queries=3, key_start=0, prefix_keys=3, batches=(first,)),
        Span(query_start=7, query_stop=12, prefix_queries=1, key_start=7, prefix_keys=1, batches=(second, third)),
    )


def test_last_queries():
    queries = TWO_GROUPS.last_queries

    first = SuffixBatch(query_start=0, key_start=3, count=2, queries=1, keys=2)
    second = SuffixBatch(query_start=2, key_start=8, count=1, queries=1, keys=1)
    third = SuffixBatch(query_start=3, key_start=9, count=1, queries=1, keys=3)
    assert queries.rows.tolist() == [4, 6, 8, 11]
    assert queries.spans == (
        Span(query_start=0, query_stop=2, prefix_queries=0, key_start=0, prefix_keys=3, batches=(first,)),
        Span(query_start=2, query_stop=4, prefix_queries=0, key_start=7, prefix_keys=1, batches=(second, third)),
    )


def test_suffix_queries():
    queries = TWO_GROUPS.suffix_queries

    second = SuffixBatch(query_start=4, key_start=8, count=1, queries=1, keys=1)
    third = SuffixBatch(query_start=5, key_start=9, count=1, queries=3, keys=3)
    assert queries.rows.tolist() == [3, 4, 5, 6, 8, 9, 10, 11]
    assert queries.spans[1] == Span(
        query_start=4, query_stop=8, prefix_queries=0, key_start=7, prefix_keys=1, batches=(second, third)
    )


def test_dropped_suffixes_leave_the_row():
    layout, tokens = TWO_GROUPS.keep([False, True, False, True])

    assert tokens.tolist() == [0, 1, 2, 5, 6, 7, 9, 10, 11]
    assert layout == Layout(
        (
            PackedGroup(user_group=4, prefix=3, suffixes=(2,), candidates=(1,)),
            PackedGroup(user_group=7, prefix=1, suffixes=(3,), candidates=(0,)),
        )
    )


def test_a_group_without_survivors_drops_its_prefix():
    layout, tokens = TWO_GROUPS.keep([False, False, True, True])

    assert tokens.tolist() == [7, 8, 9, 10, 11]
    assert [group.user_group for group in layout.groups] == [7]


@pytest.mark.parametrize(
    ("group", "prefix", "suffixes"),
    [
        (UserGroup([1, 2], [[3, 4], [3, 5, 6]]), [1, 2, 3], [[4], [5, 6]]),
        (UserGroup([1, 2], [[4], [3]]), [1, 2], [[4], [3]]),
        (UserGroup([1, 2], [[3, 4]]), [1, 2, 3], [[4]]),
        (UserGroup([1, 2], [[3, 4], [3, 4]]), [1, 2, 3], [[4], [4]]),
        (UserGroup([1, 2], [[3], [3, 4]]), [1, 2], [[3], [3, 4]]),
        (UserGroup([1, 2], [[], [3, 4]]), [1], [[2], [2, 3, 4]]),
        (UserGroup([], [[3]]), [], [[3]]),
    ],
)
def test_the_longest_common_prefix_leaves_every_suffix_a_token(group, prefix, suffixes):
    assert split_prompts(group) == (prefix, suffixes)


def test_parts_hold_every_candidate_once_and_no_more_tokens_than_a_step():
    group = UserGroup([9] * 5, [[index] * (1 + index % 4) for index in range(20)])

    parts = parts_of(group, 3, 15)

    assert len(parts) > 1
    assert sorted(candidate for part in parts for candidate in part.candidates) == list(range(20))
    for part in parts:
        assert part.user_group == 3
        assert part.num_tokens <= 15
        assert list(map(len, part.suffixes)) == sorted(map(len, part.suffixes))
        for candidate, suffix in zip(part.candidates, part.suffixes, strict=True):
            assert [*part.prefix, *suffix] == [*group.prefix, *group.suffixes[candidate]]


def test_a_group_without_candidates_has_no_parts():
    assert parts_of(UserGroup([1], []), 0, 15) == []
