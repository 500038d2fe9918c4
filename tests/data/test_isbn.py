import pytest

from optirag_core.data.isbn import SpreadsheetCheck, is_scientific, normalise_isbn
from optirag_core.errors import DataError


@pytest.mark.parametrize(
    ("raw", "isbn"),
    [
        (" 034545104x ", "034545104X"),
        ('\\0432534220\\""', "0432534220"),
        ("0010622/86", "0010622/86"),
        ("155061224", "155061224"),  # never padded
        ("B00xyz", "B00xyz"),
        ("", ""),
    ],
)
def test_normalise(raw, isbn):
    assert normalise_isbn(raw) == isbn


@pytest.mark.parametrize(("isbn", "rounded"), [("9,78292E+12", True), ("3.5816e+11", True), ("8E+11", True)])
def test_rounded_ids(isbn, rounded):
    assert is_scientific(isbn) is rounded


@pytest.mark.parametrize("isbn", ["0345451041", "034545104X", "8440E51234", "0010622/86"])
def test_genuine_ids_are_not_rounded(isbn):
    assert not is_scientific(isbn)


def seen(isbns, *, quoted):
    check = SpreadsheetCheck("Ratings.csv")
    for isbn in isbns:
        check.see(isbn, quoted=quoted)
    return check


def test_an_unquoted_file_with_short_ids_is_refused_with_share_and_examples():
    check = seen(["155061224"] * 2 + ["9,78292E+12"] + ["0345451041"] * 97, quoted=False)
    with pytest.raises(
        DataError, match=r"Ratings\.csv: .*spreadsheet.* 3 of 100 ids \(3\.0%\).*155061224.*9,78292E\+12"
    ):
        check.check()


def test_few_short_ids_or_quoted_ones_are_accepted():
    seen(["155061224"] + ["0345451041"] * 99, quoted=False).check()
    seen(["1", "2"], quoted=True).check()
