"""Packing on rows small enough to write down."""

import pytest

from optirag_core.engine.groups import UserGroup
from optirag_core.engine.layout import Layout, PackedGroup, Run, Span, parts_of, split_prompts

#  tokens   0 1 2 | 3 4 | 5 6 | 7 | 8 9 10 | 11
#           prefix  a     b     -  prefix... (second group: prefix of 1, one suffix of 3, one of 1)
TWO_GROUPS = Layout((PackedGroup(0, 3, (2, 2), (0, 1)), PackedGroup(1, 1, (1, 3), (2, 3))))


def test_offsets_and_positions():
    assert TWO_GROUPS.starts == [0, 7, 12]
    assert TWO_GROUPS.num_tokens == 12
    assert TWO_GROUPS.positions.tolist() == [0, 1, 2, 3, 4, 3, 4, 0, 1, 1, 2, 3]
    assert TWO_GROUPS.pairs == [0, 1, 2, 3]
    assert TWO_GROUPS.parts.tolist() == [0, 0, 1, 1]


def test_all_queries():
    queries = TWO_GROUPS.all_queries

    assert queries.rows is None
    assert queries.spans == (
        Span(0, 7, 3, 0, 3, (Run(3, 3, 2, 2, 2),)),
        Span(7, 12, 1, 7, 1, (Run(8, 8, 1, 1, 1), Run(9, 9, 1, 3, 3))),
    )


def test_last_queries():
    queries = TWO_GROUPS.last_queries

    assert queries.rows.tolist() == [4, 6, 8, 11]
    assert queries.spans == (
        Span(0, 2, 0, 0, 3, (Run(0, 3, 2, 1, 2),)),
        Span(2, 4, 0, 7, 1, (Run(2, 8, 1, 1, 1), Run(3, 9, 1, 1, 3))),
    )


def test_suffix_queries():
    queries = TWO_GROUPS.suffix_queries

    assert queries.rows.tolist() == [3, 4, 5, 6, 8, 9, 10, 11]
    assert queries.spans[1] == Span(4, 8, 0, 7, 1, (Run(4, 8, 1, 1, 1), Run(5, 9, 1, 3, 3)))


def test_dropped_suffixes_leave_the_row():
    layout, tokens = TWO_GROUPS.keep([False, True, False, True])

    assert tokens.tolist() == [0, 1, 2, 5, 6, 7, 9, 10, 11]
    assert layout == Layout((PackedGroup(0, 3, (2,), (1,)), PackedGroup(1, 1, (3,), (3,))))


def test_a_group_without_survivors_drops_its_prefix():
    layout, tokens = TWO_GROUPS.keep([False, False, True, True])

    assert tokens.tolist() == [7, 8, 9, 10, 11]
    assert [group.part for group in layout.groups] == [1]


def test_rows_are_filled_to_a_bucket():
    layout = Layout(TWO_GROUPS.groups, bucket=8)

    assert (layout.num_tokens, layout.num_filling) == (16, 4)
    assert layout.positions[12:].tolist() == [0, 0, 0, 0]
    assert layout.last_queries.rows.tolist() == [4, 6, 8, 11, 0, 0, 0, 0]
    kept, tokens = layout.keep([False, True, False, False])
    assert (kept.num_tokens, tokens.tolist()) == (8, [0, 1, 2, 5, 6, 0, 0, 0])


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


def test_parts_hold_every_pair_once_and_no_more_tokens_than_a_step():
    groups = [
        UserGroup([9] * 5, [[index] * (1 + index % 4) for index in range(20)]),
        UserGroup([1], []),
        UserGroup([1], [[2]]),
    ]

    parts = list(parts_of(groups, 15))

    assert sorted(pair for part in parts for pair in part.pairs) == list(range(21))
    assert [part.number for part in parts] == list(range(len(parts)))
    for part in parts:
        assert part.num_tokens <= 15
        assert list(map(len, part.suffixes)) == sorted(map(len, part.suffixes))
        for pair, suffix in zip(part.pairs, part.suffixes, strict=True):
            group, index = (groups[0], pair) if pair < 20 else (groups[2], 0)
            assert [*part.prefix, *suffix] == [*group.prefix, *group.suffixes[index]]
