"""Groups carry what is known of their candidates at their request's moment, and nothing later."""

from math import log1p

import pytest

from optirag_core.prompting.assembly import Request

from .small import SIMILAR, TARGET, assembler, timed

USER_COUNT, ITEM_COUNT = 2, 5
"""Places of log(1 + rows) among the features."""


def counts(result):
    """(rows of the user, rows of the item) of each candidate."""
    return [(pytest.approx(row[USER_COUNT]), pytest.approx(row[ITEM_COUNT])) for row in result.prompt.group.evidence]


def rows(user, item):
    return (log1p(user), log1p(item))


def test_each_candidate_has_its_own_evidence_and_rejects_have_none(byte_tokenizer):
    asked = [
        Request("a", ["i2", "unheard", "i6", "i3"]),
        Request("new", ["unheard"]),
        Request("new", ["i2"]),
    ]
    first, nothing, last = assembler(byte_tokenizer, [*TARGET, *SIMILAR], evidence=True).assemble(asked)
    # a read i0..i3, b i2..i6; a pair's own row never counts
    assert counts(first) == [rows(3, 1), rows(4, 1), rows(3, 1)]
    assert nothing.prompt is None
    assert counts(last) == [rows(0, 2)]


def test_a_position_hides_the_users_later_rows(byte_tokenizer):
    given = assembler(byte_tokenizer, [*TARGET, *SIMILAR], evidence=True)
    [result] = given.assemble([Request("a", ["i2", "q0"], as_of_position=1)])
    assert counts(result) == [rows(1, 1), rows(1, 0)]


@pytest.mark.parametrize("moment", [{"as_of": 250}, {"as_of_position": 2}, {"as_of": 900, "as_of_position": 2}])
def test_where_there_are_times_nobodys_later_rows_count(byte_tokenizer, moment):
    later = ("c", "q0", 4, "train", 300)  # at the time of a's position 2
    given = assembler(byte_tokenizer, [*timed([*TARGET, *SIMILAR]), later], evidence=True)
    [result] = given.assemble([Request("a", ["i3", "q0"], **moment)])
    # a's i0 and i1 at 100 and 200; b's i3 at 200
    assert counts(result) == [rows(2, 1), rows(2, 0)]
    [result] = given.assemble([Request("a", ["q0"])])
    assert counts(result) == [rows(4, 1)]


def test_a_request_of_times_where_there_are_none_is_a_reject(byte_tokenizer):
    [result] = assembler(byte_tokenizer, TARGET, evidence=True).assemble([Request("a", ["q0"], as_of=3)])
    assert (result.prompt, [reject.error_code for reject in result.rejects]) == (None, ["as_of_without_times"])


def test_prompts_are_the_same_without_it(byte_tokenizer):
    asked = [Request("a", ["i2", "q0"])]
    [plain], [more] = (
        assembler(byte_tokenizer, [*TARGET, *SIMILAR], evidence=evidence).assemble(asked) for evidence in (False, True)
    )
    assert plain.prompt.group.evidence is None
    assert (plain.prompt.group.prefix, plain.prompt.group.suffixes) == (
        more.prompt.group.prefix, more.prompt.group.suffixes,
    )  # fmt: skip
