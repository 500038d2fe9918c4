import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optirag_core.data.quoted_csv import MAX_JOINED_LINES, read_rows, restore_quotes
from optirag_core.data.raw_files import MalformedCounter, RawFile
from optirag_core.errors import DataError

from .conftest import write_latin1

COLUMNS = ("ISBN", "Title", "Author")
HEADER = '"ISBN";"Title";"Author"\n'

# what Latin-1 can hold; a CRLF inside a field is read as LF, so carriage returns are left out here
latin1_text = st.text(st.characters(codec="latin-1", exclude_characters="\r"), max_size=30) | st.text(
    '";\\\nab ', max_size=12
)


def rows_of(path, text, header="auto"):
    malformed = MalformedCounter("Books.csv", 1.0)
    rows = list(read_rows(RawFile(write_latin1(path, text)), COLUMNS, header, malformed))
    return [row.fields for row in rows], malformed


@pytest.fixture
def path(tmp_path):
    return tmp_path / "Books.csv"


def quoted(field):
    return '"' + field.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(rows=st.lists(st.tuples(latin1_text, latin1_text, latin1_text), min_size=1, max_size=5), crlf=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_round_trip(path, rows, crlf):
    rows = [tuple(field.replace("\n", "", max(0, field.count("\n") - 1)) for field in row) for row in rows]
    text = HEADER + "".join(";".join(map(quoted, row)) + ("\r\n" if crlf else "\n") for row in rows)
    read, malformed = rows_of(path, text)
    assert read == [list(row) for row in rows]
    assert (malformed.num_lines, malformed.num_malformed) == (len(rows), 0)


def test_quotes_nulls_and_doubled_quotes(path):
    read, _ = rows_of(path, HEADER + r'"1";"a \"b\"; c";NULL' + '\n"2";"say ""hi""";""\n')
    assert read == [["1", 'a "b"; c', "NULL"], ["2", 'say "hi"', ""]]


def test_columns_are_found_by_name_and_others_ignored(path):
    read, _ = rows_of(path, 'ï»¿"Author";"image";"isbn";"Title"\n"Ann";"url";"1";"First"\n')
    assert read == [["1", "First", "Ann"]]


def test_an_open_quote_that_nothing_closes_costs_one_line(path):
    read, malformed = rows_of(path, HEADER + '"1";"open;"Ann"\n"2";"never closed\n"3";"Third";"Cleo"\n')
    assert read == [["3", "Third", "Cleo"]]
    assert malformed.num_malformed == 2
    assert malformed.examples[1] == "line 3: a quote is not closed"


def test_joining_stops_after_a_few_lines(path):
    within = '"1";"' + "a\n" * MAX_JOINED_LINES + '";"Ann"\n'
    beyond = '"2";"' + "b\n" * (MAX_JOINED_LINES + 1) + '";"Ann"\n'
    read, malformed = rows_of(path, HEADER + within + beyond + '"3";"Third";"Cleo"\n')
    assert read == [["1", "a\n" * MAX_JOINED_LINES, "Ann"], ["3", "Third", "Cleo"]]
    assert malformed.examples[0].startswith("line 8:")
    assert malformed.num_lines == 2 + malformed.num_malformed


def test_a_wrong_number_of_fields_is_malformed(path):
    read, malformed = rows_of(path, HEADER + '"1";"First"\n"2";"Second";"Bo"\n"3";"x";"y";"z"\n')
    assert read == [["2", "Second", "Bo"]]
    assert malformed.examples == ["line 2: 2 fields, expected 3", "line 4: 4 fields, expected 3"]


def test_a_missing_header_is_named_and_the_way_out(path):
    with pytest.raises(
        DataError, match=r"Books\.csv: the header line is missing: line 1 is '1;First;Ann'.*--header none"
    ):
        rows_of(path, '"1";"First";"Ann"\n')


def test_header_none_reads_by_position_and_still_skips_a_header(path):
    body = '"1";"First";"Ann";"url"\n'
    assert rows_of(path, body, "none")[0] == [["1", "First", "Ann"]]
    assert rows_of(path, HEADER + '"1";"First";"Ann"\n', "none")[0] == [["1", "First", "Ann"]]


@pytest.mark.parametrize("header", ["auto", "none"])
def test_another_separator_is_named(path, header):
    with pytest.raises(DataError, match=r"line 1 is 'ISBN,Title,Author', expected 3 fields, ISBN;Title;Author"):
        rows_of(path, "ISBN,Title,Author\n1,First,Ann\n", header)


@pytest.mark.parametrize(
    ("parsed", "restored"),
    [
        (r'Cascades - \Fahrenheit 451\" (Collins Cascades)"', 'Cascades - "Fahrenheit 451" (Collins Cascades)'),
        (r'\Girls\' Night Out\"/\"Boys\' Night In\""'.replace(r"\'", "'"), '"Girls\' Night Out"/"Boys\' Night In"'),
        (r'\O\" Is for Outlaw"', '"O" Is for Outlaw'),
        (r"\The Waste Land\ and Other Poems", '"The Waste Land" and Other Poems'),
        ('3 1/2" disks', '3 1/2" disks'),
    ],
)
def test_twice_escaped_titles(parsed, restored):
    assert restore_quotes(parsed) == restored
