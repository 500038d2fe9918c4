"""Groups carry what is known of their candidates at their moment, prompts say it, and neither tells later rows."""

from dataclasses import replace
from math import log1p
from pathlib import Path

import pytest

from optirag_core import prompting
from optirag_core.config.data import PromptSettings
from optirag_core.errors import PromptError
from optirag_core.prompting.assembly import Request
from optirag_core.prompting.template import PromptTemplate

from .conftest import FAMILIES
from .small import SETTINGS, SIMILAR, TARGET, assembler, timed

TEMPLATES = Path(prompting.__file__).parent / "templates"
HEADS, WORDS = False, True  # what the prompt says of the evidence on its group
ASKED = [Request("a", ["i2", "q0"])]

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
    first, nothing, last = assembler(byte_tokenizer, [*TARGET, *SIMILAR], evidence=HEADS).assemble(asked)
    # a read i0..i3, b i2..i6; a pair's own row never counts
    assert counts(first) == [rows(3, 1), rows(4, 1), rows(3, 1)]
    assert nothing.prompt is None
    assert counts(last) == [rows(0, 2)]


def test_a_position_hides_the_users_later_rows(byte_tokenizer):
    given = assembler(byte_tokenizer, [*TARGET, *SIMILAR], evidence=HEADS)
    [result] = given.assemble([Request("a", ["i2", "q0"], as_of_position=1)])
    assert counts(result) == [rows(1, 1), rows(1, 0)]


@pytest.mark.parametrize("moment", [{"as_of": 250}, {"as_of_position": 2}, {"as_of": 900, "as_of_position": 2}])
def test_where_there_are_times_nobodys_later_rows_count(byte_tokenizer, moment):
    later = ("c", "q0", 4, "train", 300)  # at the time of a's position 2
    given = assembler(byte_tokenizer, [*timed([*TARGET, *SIMILAR]), later], evidence=HEADS)
    [result] = given.assemble([Request("a", ["i3", "q0"], **moment)])
    # a's i0 and i1 at 100 and 200; b's i3 at 200
    assert counts(result) == [rows(2, 1), rows(2, 0)]
    [result] = given.assemble([Request("a", ["q0"])])
    assert counts(result) == [rows(4, 1)]


def test_a_request_of_times_where_there_are_none_is_a_reject(byte_tokenizer):
    [result] = assembler(byte_tokenizer, TARGET, evidence=HEADS).assemble([Request("a", ["q0"], as_of=3)])
    assert (result.prompt, [reject.error_code for reject in result.rejects]) == (None, ["as_of_without_times"])


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_the_same_where_only_heads_read_it(byte_tokenizer, family):
    settings = SETTINGS.model_copy(update={"template": family})
    [plain], [more], [said] = (
        assembler(byte_tokenizer, [*TARGET, *SIMILAR], settings=settings, evidence=evidence).assemble(ASKED)
        for evidence in (None, HEADS, WORDS)
    )
    assert plain.prompt.group.evidence is None
    assert said.prompt.group.evidence == more.prompt.group.evidence
    assert replace(more.prompt.group, evidence=None) == plain.prompt.group
    assert said.prompt.group.suffixes != plain.prompt.group.suffixes


def texts(tokenizer, result):
    return [tokenizer.decode(ids) for ids in (result.prompt.group.prefix, *result.prompt.group.suffixes)]


def test_the_prompt_says_what_others_thought_of_a_candidate(byte_tokenizer):
    books = SETTINGS.model_copy(update={"template": "books"})
    given = assembler(byte_tokenizer, [*TARGET, *SIMILAR], settings=books, evidence=WORDS)
    prefix, first, second = texts(byte_tokenizer, given.assemble(ASKED)[0])
    # of the 9 rows, the pair's own one is left out: 3 of a's 4 liked rows and none of b's 5, one of them of i2
    assert first.startswith(
        " ***Title of i2 by Author of i2***. 3 of 10 readers liked it. It has few ratings. You must"
    )
    assert second.startswith(
        " ***Title of q0 by Author of q0***. 5 of 10 readers liked it. It has no ratings. You must"
    )
    assert "'Title of i0 by Author of i0 (4 stars)'" in prefix
    assert "The user's average rating is 4. The user read the following" in prefix


def test_the_short_prompt_says_it_in_fewer_words(byte_tokenizer):
    books = SETTINGS.model_copy(update={"template": "books_short"})
    given = assembler(byte_tokenizer, [*TARGET, *SIMILAR], settings=books, evidence=WORDS)
    prefix, first, _ = texts(byte_tokenizer, given.assemble(ASKED)[0])
    assert first == " ***Title of i2 by Author of i2***? 3 of 10 liked it, few ratings. Answer yes or no:"
    assert "Reader: Average rating 4.0. Ratings: [ 'Title of i0 by Author of i0 (4)'," in prefix


def test_a_leak_into_the_words_is_not_there(byte_tokenizer):
    """The pair's own row, and everybody's at its moment."""
    rows = timed([*TARGET, *SIMILAR])
    planted = [("a", "q0", 1, "train", 150), *(("c", "q0", 1, "train", time) for time in (300, 301))]
    honest, leaking, earlier = (
        texts(byte_tokenizer, assembler(byte_tokenizer, [*rows, *more], evidence=WORDS).assemble(
            [Request("a", ["q0"], as_of=300)])[0])[1]
        for more in ([], planted, [("c", "q0", 1, "train", 299)])
    )  # fmt: skip
    assert honest == leaking
    assert "no ratings" in honest
    assert "few ratings" in earlier


def test_a_template_without_the_words_is_refused_where_they_are_asked_for(tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text((TEMPLATES / "books.jinja").read_text(encoding="utf-8").replace("candidate_evidence", "other"))
    settings = PromptSettings(template=str(own))
    PromptTemplate(settings)
    with pytest.raises(PromptError, match="has no macro 'candidate_evidence'"):
        PromptTemplate(settings, evidence=True)
