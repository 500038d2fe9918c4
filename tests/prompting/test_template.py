import re

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from optirag_core.config.data import PromptSettings
from optirag_core.errors import PromptError
from optirag_core.prompting.template import MACROS, PromptTemplate, as_data

from .conftest import FAMILIES, READER, SETTINGS, item

MINIMAL = "".join(f"{{% macro {name}(value=none) %}}{name}{{% endmacro %}}" for name in MACROS)
OPENS_LIST = {"generic": " items: [", "books_short": " Ratings: ["}


@pytest.fixture
def template_file(tmp_path):
    def file(source: str) -> PromptSettings:
        path = tmp_path / "own.jinja"
        path.write_text(source, encoding="utf-8")
        return PromptSettings(template=str(path))

    return file


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {"books_short"}))
def test_the_question_and_the_instruction_demand_yes_or_no(family):
    settings = SETTINGS[family].model_copy(update={"answer_yes": "ja", "answer_no": "nein"})
    template = PromptTemplate(settings)
    for macro in ("instruction", "answer_cue"):
        assert "ONLY answer ja or nein." in template.render(macro)
    assert template.render("answer_cue").endswith("\nAnswer:")
    assert template.candidate(item("Emma", city=None, price=None, genre=None, tags=None)) == " ***Emma***."


@pytest.mark.parametrize("family", FAMILIES)
def test_lists_open_in_front_of_the_entries(family):
    template = PromptTemplate(SETTINGS[family])
    for macro in ("similar_user", "target_user"):
        assert template.render(macro, READER).endswith(OPENS_LIST.get(family, " rated them: ["))


@pytest.mark.parametrize(
    ("family", "shown", "candidate", "rating"),
    [
        ("books", " 'Emma", " ***Emma***.", " (4 stars)'"),
        ("books_short", " 'Emma", " ***Emma***?", " (4)'"),
        ("amazon", " 'Emma. Its price is $4.50", " ***Emma***.", " (4.0 stars)'"),
        ("yelp", " 'Emma, Tampa FL", " ***Emma located in Tampa FL***.", " (4.0 stars)'"),
        ("generic", " 'Emma, genre crime, tags a, b", " ***Emma, genre crime, tags a, b***.", " (rating 4)'"),
    ],
)
def test_items_and_ratings(family, shown, candidate, rating):
    template = PromptTemplate(SETTINGS[family])
    assert template.entry(item("Emma")) == shown
    assert template.candidate(item("Emma")) == candidate
    assert template.rating(4.0, last=True) == rating
    assert template.rating(4.0, last=False) == f"{rating},"


def test_a_city_without_a_state():
    template = PromptTemplate(SETTINGS["yelp"])
    assert template.entry(item("Emma", state=None)) == " 'Emma, Tampa"
    assert template.candidate(item("Emma", state=None)) == " ***Emma located in Tampa***."


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("title", ["Emma", " Emma ", "\u00a0Emma\u3000", "\u2003", "Emma\u200b", "\u0301"])
def test_pieces_join_at_single_spaces(family, title):
    template, row = PromptTemplate(SETTINGS[family]), {**item(title), **READER, "location": title}
    pieces = [template.profile(macro, row) for macro in ("similar_user", "target_user")]
    pieces += [template.entry(row), template.candidate(row), template.answer_cue()]
    pieces += [template.rating(3.5, last=last) for last in (True, False)]
    pieces += [template.closing("rank", 2), template.closing("target_heading"), template.closing("question")]
    assert all(re.match(r" \S", piece) and not piece[-1].isspace() for piece in pieces)
    assert not any(template.opening(similar=similar)[place].isspace() for similar in (True, False) for place in (0, -1))


@pytest.mark.parametrize(("family", "one"), [("books", "(1 star)"), ("amazon", "(1.0 star)"), ("yelp", "(1.0 star)")])
def test_one_star_is_singular(family, one):
    assert one in PromptTemplate(SETTINGS[family]).render("rating", 1.0)


def test_fractions_of_a_rating_are_shown():
    assert PromptTemplate(SETTINGS["generic"]).render("rating", 3.25) == " (rating 3.25)'"


@pytest.mark.parametrize(("age", "shown"), [(47, "45-49"), (45, "45-49"), (44, "40-44"), (5, "5-9"), (None, "unknown")])
def test_ages_are_shown_in_fives(age, shown):
    text = PromptTemplate(SETTINGS["books"]).render("target_user", {**READER, "age": age})
    assert f"The user's age is {shown}." in text


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_values_never_show_as_none(family):
    template = PromptTemplate(SETTINGS[family])
    texts = [template.render(macro, dict.fromkeys(READER)) for macro in ("similar_user", "target_user")]
    nothing = {**dict.fromkeys(item("")), "title": "Emma"}
    texts += [template.render(macro, nothing) for macro in ("item", "candidate")]
    assert not [text for text in texts if "None" in text]
    assert texts[-2] == "Emma"
    assert texts[-1] in (" ***Emma***.", " ***Emma***?")


@pytest.mark.parametrize(
    ("family", "macro"),
    [("books", "target_user"), ("yelp", "similar_user"), *((family, "item") for family in FAMILIES)],
)
def test_a_missing_column_is_named_with_those_there_are(family, macro):
    with pytest.raises(PromptError, match=rf"template {family}, {macro}: .* has no attribute .*; the row has id, shoe"):
        PromptTemplate(SETTINGS[family]).render(macro, {"id": 1, "shoe": 2})


def test_the_short_prompt_asks_for_one_of_the_answers():
    settings = SETTINGS["books_short"].model_copy(update={"answer_yes": "ja", "answer_no": "nein"})
    assert PromptTemplate(settings).answer_cue() == " Answer ja or nein:"


def test_an_unknown_field_of_the_generic_template_is_named():
    settings = PromptSettings(template="generic", item_fields=("colour",))
    with pytest.raises(PromptError, match=r"'colour'; the row has title, price"):
        PromptTemplate(settings).render("item", item("Emma"))


def test_an_unknown_template_names_those_there_are():
    with pytest.raises(PromptError, match=r"no prompt template 'boks': use amazon, books, books_short, generic, yelp"):
        PromptTemplate(PromptSettings(template="boks"))


def test_a_template_file_of_ones_own(template_file):
    template = PromptTemplate(template_file(MINIMAL.replace("}item{", "}<{{ value.title }}>{")))
    assert template.render("item", item("Emma")) == "<Emma>"
    assert template.render("question") == "question"


SPACED = """
{% macro instruction() %}  Answer {{ yes }}. {% endmacro %}
{% macro similar_heading() %} Others: {% endmacro %}{% macro rank(number) %}\n{{ number }}){% endmacro %}
{% macro similar_user(user) %}{% endmacro %}{% macro target_user(user) %}\tlikes:\n{% endmacro %}
{% macro target_heading() %}\n\nUser:\n{% endmacro %}
{% macro item(item) %}  {{ item.title }} {% endmacro %}{% macro rating(stars) %}: {{ stars }} {% endmacro %}
{% macro question() %}\nAnd <{% endmacro %}{% macro candidate(item) %}{{ item.title }}{% endmacro %}
{% macro answer_cue() %}>? {% endmacro %}
"""
"""Pieces that start without white space, end with it, or are empty."""


def test_whitespace_around_the_pieces_of_ones_own_template_becomes_one_space(template_file):
    template = PromptTemplate(template_file(SPACED))
    assert template.opening(similar=True) == "Answer yes.  Others: \n1)"
    assert template.opening(similar=False) == "Answer yes. \n\nUser:"
    assert (template.profile("similar_user", READER), template.profile("target_user", READER)) == ("", " likes:")
    assert (template.entry(item("Emma")), template.rating(3.0, last=False)) == (" 'Emma", " : 3.0,")
    assert (template.closing("rank", 2), template.closing("question")) == (" ]\n2)", " ]\nAnd <")
    assert (template.candidate(item("Emma")), template.answer_cue()) == (" Emma", " >?")


@pytest.mark.parametrize("name", MACROS)
def test_a_missing_macro_is_named(template_file, name):
    with pytest.raises(PromptError, match=rf"has no macro '{name}'; it needs instruction, .*, answer_cue"):
        PromptTemplate(template_file(MINIMAL.replace(f"macro {name}(", "macro other(")))


@pytest.mark.parametrize("source", ["{% macro item(", "{{ nothing }}", "{% include 'books' %}", "{{ 1 / 0 }}"])
def test_a_template_that_does_not_work(template_file, source):
    with pytest.raises(PromptError, match=r"prompt template .*own\.jinja: "):
        PromptTemplate(template_file(MINIMAL + source))


def test_a_template_cannot_reach_python(template_file):
    settings = template_file(MINIMAL.replace("}item{", "}{{ value.__class__.__mro__ }}{"))
    with pytest.raises(PromptError, match="unsafe"):
        PromptTemplate(settings).render("item", item("Emma"))


def test_the_digest_covers_what_changes_prompts(template_file):
    digests = {
        PromptTemplate(settings).digest
        for settings in (
            *SETTINGS.values(),
            SETTINGS["books"].model_copy(update={"answer_yes": "ja"}),
            SETTINGS["books"].model_copy(update={"answer_no": "nein"}),
            SETTINGS["generic"].model_copy(update={"item_fields": ("genre",)}),
            template_file(MINIMAL),
        )
    }
    assert len(digests) == len(SETTINGS) + 4
    same = SETTINGS["books"].model_copy(update={"max_tokens": 99})
    assert PromptTemplate(same).digest == PromptTemplate(SETTINGS["books"]).digest


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("It's [new]", "It\u2019s (new)"),
        ("a ***b*** c", "a *b* c"),
        ("***", "untitled"),
        ("", "untitled"),
        (" \n\t ", "untitled"),
        ("M*A*S*H", "M*A*S*H"),
        ("one\r\n\x00two\u2028three\x85four", "one two three four"),
        ("\u2581a\u2581b", "a b"),
        ("{{ 7 * 7 }}{% raw %}", "{{ 7 * 7 }}{% raw %}"),
        ("naïve 日本 🙂", "naïve 日本 🙂"),
        (["it's", "[x]"], "it\u2019s, (x)"),
    ],
)
def test_what_text_becomes(raw, clean):
    assert as_data(raw) == clean


@examples(max_examples=300, deadline=None)
@given(st.text() | st.lists(st.text()) | st.dictionaries(st.text(), st.text()) | st.binary())
@example({"it's": "[x]"})
@example(["'"])
@example(b"'")
@example("*\x00**")
def test_no_value_can_break_out_of_its_place(value):
    text = str(as_data({"column": value})["column"])
    assert text
    assert not re.search(r"['\[\]\x00-\x1f\x7f-\x9f\u2028\u2029]|\*\*|^\*|\*$", text)
    assert as_data(text) == text


@given(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False))
def test_numbers_pass(value):
    assert as_data(value) is value
