import zipfile

import pytest

from optirag_core.data.bookcrossing import load_bookcrossing
from optirag_core.errors import DataError, MalformedLines

from .conftest import book_settings, write_latin1

FILES = ("BX-Users.csv", "BX-Books.csv", "BX-Book-Ratings.csv")


def append(path, text):
    write_latin1(path, path.read_text(encoding="latin-1") + text)


def test_a_sound_folder(books_folder):
    data = load_bookcrossing(books_folder, book_settings())
    assert data.users.to_pylist() == [
        {"user_id": "1", "location": "USA", "age": None},
        {"user_id": "2", "location": "Portugal", "age": 17},
        {"user_id": "3", "location": "Germany", "age": None},  # 244 is no age
    ]
    assert data.items.to_pylist() == [
        {"item_id": "0000000019", "title": "First", "author": "Ann Author", "year": 1999, "publisher": "House & Sons"},
        {"item_id": "000000006X", "title": "Second", "author": None, "year": None, "publisher": "House"},
        {"item_id": "0000000027", "title": "Third", "author": "Bo", "year": 2001, "publisher": None},
    ]
    assert data.ratings.to_pylist() == [
        {"user_id": user, "item_id": item, "rating": rating, "event_time": None}
        for user, item, rating in (
            ("1", "0000000019", 0.0),
            ("1", "000000006X", 8.0),
            ("2", "0000000019", 5.0),
            ("3", "0000000027", 10.0),
        )
    ]
    assert data.warnings == ()
    assert data.counts == {
        "malformed_ratings": 0,
        "malformed_books": 0,
        "malformed_users": 0,
        "ratings_without_item": 0,
        "users_without_profile": 0,
        "num_ratings": 4,
        "num_users": 3,
        "num_items": 3,
    }


def test_one_zip_with_all_three_files_reads_the_same(books_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zipped")
    with zipfile.ZipFile(folder / "BX-CSV-Dump.zip", "w") as archive:
        for name in FILES:
            archive.write(books_folder / name, name)
    zipped, plain = (load_bookcrossing(path, book_settings()) for path in (folder, books_folder))
    assert (zipped.ratings, zipped.users, zipped.items) == (plain.ratings, plain.users, plain.items)


@pytest.mark.parametrize(
    ("location", "country"),
    [
        ("milan\n, milan, italy", "Italy"),
        ('lisbon, \\"n/a\\",', None),
        ('tel-aviv, \\"n/a\\"), israel', "Israel"),
        ("london, england, united kingdom", "United Kingdom"),
        ("n/a, n/a, n/a", None),
        ("x, y, uk", "UK"),
        ("x, y, espaÃ±a", "España"),
    ],
)
def test_locations(books_folder, location, country):
    append(books_folder / "BX-Users.csv", f'"9";"{location}";"30"\n')
    assert load_bookcrossing(books_folder, book_settings()).users.to_pylist()[-1] == {
        "user_id": "9",
        "location": country,
        "age": 30,
    }


@pytest.mark.parametrize(
    ("age", "known"), [("4", None), ("5", 5), ("100", 100), ("101", None), ("x", None), ("", None)]
)
def test_ages(books_folder, age, known):
    append(books_folder / "BX-Users.csv", f'"9";"a, b, usa";"{age}"\n')
    assert load_bookcrossing(books_folder, book_settings()).users["age"].to_pylist()[-1] == known


@pytest.mark.parametrize(("year", "known"), [("0", None), ("1378", None), ("1450", 1450), ("2999", None), ("x", None)])
def test_years(books_folder, year, known):
    append(books_folder / "BX-Books.csv", f'"0000000035";"T";"A";"{year}";"P"\n')
    assert load_bookcrossing(books_folder, book_settings()).items["year"].to_pylist()[-1] == known


def test_titles_with_line_breaks_and_double_escapes(books_folder):
    append(
        books_folder / "BX-Books.csv",
        r'"0003300277";"Cascades - \\Fahrenheit 451\\\" (Collins Cascades)\"";"Ray";"1985";"H"'
        + '\r\n"0000000043";"Two\nlines; and a semicolon";"A";"1990";"P"\n"0000000051";"";"A";"1990";"P"\n',
    )
    titles = load_bookcrossing(books_folder, book_settings()).items["title"].to_pylist()
    assert titles[-3:] == [
        'Cascades - "Fahrenheit 451" (Collins Cascades)',
        "Two lines; and a semicolon",
        "0000000051",  # no title: the id stands in
    ]


def test_ratings_of_unknown_books_are_dropped_and_unknown_users_kept(books_folder):
    append(books_folder / "BX-Book-Ratings.csv", '"1";"9999999999";"7"\n"77";"0000000019";"9"\n')
    data = load_bookcrossing(books_folder, book_settings())
    assert data.ratings["item_id"].to_pylist().count("9999999999") == 0
    assert data.ratings.num_rows == 5
    assert data.users.to_pylist()[-1] == {"user_id": "77", "location": None, "age": None}
    assert (data.counts["ratings_without_item"], data.counts["users_without_profile"]) == (1, 1)
    assert len(data.warnings) == 2
    assert data.warnings[0].startswith("dropped 1 ratings of books")


def test_without_the_users_file_profiles_are_unknown(books_folder):
    (books_folder / "BX-Users.csv").unlink()
    data = load_bookcrossing(books_folder, book_settings())
    assert data.users.to_pylist() == [{"user_id": user, "location": None, "age": None} for user in "123"]
    assert any("no BX-Users.csv" in warning for warning in data.warnings)


def test_ratings_that_share_no_book_are_refused(books_folder):
    write_latin1(books_folder / "BX-Book-Ratings.csv", '"User-ID";"ISBN";"Book-Rating"\n"1";"9999999999";"7"\n')
    with pytest.raises(DataError, match="none of the 1 ratings is of a book in BX-Books"):
        load_bookcrossing(books_folder, book_settings())


@pytest.mark.parametrize("rating", ["11", "-1", "5.0", "", "NULL", "five"])
def test_a_rating_must_be_a_whole_number_from_0_to_10(books_folder, rating):
    append(books_folder / "BX-Book-Ratings.csv", f'"1";"0000000027";"{rating}"\n')
    with pytest.raises(MalformedLines, match=r"1 of 5 lines.*line 6: rating"):
        load_bookcrossing(books_folder, book_settings())
    lenient = load_bookcrossing(books_folder, book_settings(max_malformed_share=0.5))
    assert lenient.ratings.num_rows == 4
    assert lenient.counts["malformed_ratings"] == 1


def test_one_rounded_id_is_malformed_and_never_joined(books_folder):
    append(books_folder / "BX-Books.csv", '"9,78292E+12";"Wrong";"A";"1990";"P"\n')
    append(books_folder / "BX-Book-Ratings.csv", '"1";"9,78292E+12";"7"\n')
    data = load_bookcrossing(books_folder, book_settings(max_malformed_share=0.5))
    assert "9,78292E+12" not in data.ratings["item_id"].to_pylist()
    assert "9,78292E+12" not in data.items["item_id"].to_pylist()
    assert "ISBN '9,78292E+12' was rounded by a spreadsheet" in data.warnings[0]


def test_real_files(real_data):
    data = load_bookcrossing(real_data("bookcrossing"), book_settings())
    assert (data.counts["num_users"], data.counts["num_items"]) == (278858, 50643)
    assert data.counts["num_ratings"] + data.counts["ratings_without_item"] == 419089
    assert not any(data.counts[f"malformed_{name}"] for name in ("users", "books", "ratings"))
    titles = data.items["title"].to_pylist()
    assert 'Cascades - "Fahrenheit 451" (Collins Cascades)' in titles
    assert "La casa de los espíritus" in titles
    assert not any("\\" in title or "\n" in title for title in titles)


def damaged_folder(real_data, tmp_path, name):
    damaged, original = real_data("bookcrossing-damaged"), real_data("bookcrossing")
    for stem in ("BX-Users", "BX-Books"):
        (tmp_path / f"{stem}.csv.gz").symlink_to(original / f"{stem}.csv.gz")
    (tmp_path / "BX-Book-Ratings.csv.gz").symlink_to(damaged / name)
    return tmp_path


def test_real_headless_file_needs_header_none(real_data, tmp_path):
    folder = damaged_folder(real_data, tmp_path, "BX-Book-Ratings-headless.csv.gz")
    with pytest.raises(DataError, match=r"header line is missing: line 1 is '43842;0739432540;0'.*--header none"):
        load_bookcrossing(folder, book_settings())
    data = load_bookcrossing(folder, book_settings(header="none"))
    assert data.counts["num_ratings"] + data.counts["ratings_without_item"] == 39268
    assert data.counts["num_users"] == 278858


def test_real_spreadsheet_copy_is_refused(real_data, tmp_path):
    folder = damaged_folder(real_data, tmp_path, "BX-Book-Ratings-excel.csv.gz")
    with pytest.raises(DataError, match=r"damaged by a spreadsheet.*of 99,996 ids \(74\.\d%\).*155061224"):
        load_bookcrossing(folder, book_settings())
