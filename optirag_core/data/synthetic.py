"""A small artificial BookCrossing: everything can be tried, and tested against a known truth, without a download.

    rating = clip(round(base + user[u] + author[author of i] + book[i] + taste[u, genre of i] + noise), 1, 10)

    user    ~ N(0, 1.0)             how generous a reader is
    author  ~ N(0, 1.15)            an author writes in one genre, with one quality
    book    ~ N(0, 0.4)
    taste   +2.6 for 2 genres, -2.6 for 2 others, else 0; plus N(0, 0.4); centred per user, so the mean reveals no taste
    noise   ~ N(0, 1.0)

A reader picks a book with a probability proportional to popularity[i] * exp(0.5 * taste[u, genre of i]), without
repetition: so who reads what tells about taste as well. Titles consist of their genre's own words.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optirag_core.config.data import SyntheticSettings
from optirag_core.data.vocabulary import FIRST_NAMES, GENRES, LAST_NAMES, LOCATIONS, genre_titles

BASE = 4.5
USER_SD, AUTHOR_SD, BOOK_SD, NOISE_SD = 1.0, 1.15, 0.4, 1.0
LIKING, TASTE_SD = 2.6, 0.4
NUM_LIKED_GENRES, NUM_DISLIKED_GENRES = 2, 2
CHOICE_BIAS = 0.5
POPULARITY_SD = 0.7
BOOKS_PER_AUTHOR = 8
UNKNOWN_AGE_SHARE = 0.3


@dataclass(frozen=True)
class SyntheticWorld:
    """The generated readers, books and ratings, with the effects that made them.

    Shapes: U users, B books, R ratings, G genres.

    Attributes:
        user_ids: U ids.
        item_ids: B ids.
        titles: B distinct titles.
        authors: B names.
        book_genre: [B], row of `GENRES`.
        user_effect: [U].
        author_effect: [B], of each book's author.
        book_effect: [B].
        taste: [U, G].
        rating_user: [R], row of `user_ids`, ascending.
        rating_book: [R], row of `item_ids`.
        rating: [R], 1 to 10.
    """

    user_ids: list[str]
    item_ids: list[str]
    titles: list[str]
    authors: list[str]
    book_genre: np.ndarray
    user_effect: np.ndarray
    author_effect: np.ndarray
    book_effect: np.ndarray
    taste: np.ndarray
    rating_user: np.ndarray
    rating_book: np.ndarray
    rating: np.ndarray

    def expected_rating(self, users: np.ndarray, books: np.ndarray) -> np.ndarray:
        """The rating before noise, rounding and clipping: what an oracle would predict.

        Args:
            users: [N], rows of `user_ids`.
            books: [N], rows of `item_ids`.
        """
        effects = self.user_effect[users] + self.author_effect[books] + self.book_effect[books]
        return BASE + effects + self.taste[users, self.book_genre[books]]


def generate(settings: SyntheticSettings, seed: int) -> SyntheticWorld:
    """Draw a world; the same settings and seed give the same one."""
    rng = np.random.default_rng(seed)
    num_users, num_books, num_genres = settings.num_users, settings.num_books, len(GENRES)
    book_genre = rng.permutation(np.arange(num_books) % num_genres)
    author = _authors(book_genre, rng)
    taste = _taste(num_users, num_genres, rng)
    popularity = rng.normal(0.0, POPULARITY_SD, num_books)
    rating_user, rating_book = _choices(settings, taste, popularity, book_genre, rng)
    names = rng.permutation([f"{first} {last}" for first in FIRST_NAMES.split() for last in LAST_NAMES.split()])
    world = SyntheticWorld(
        user_ids=[str(number) for number in range(1, num_users + 1)],
        item_ids=[_isbn(number) for number in range(1, num_books + 1)],
        titles=_titles(book_genre, rng),
        authors=[str(names[index % len(names)]) for index in author],
        book_genre=book_genre,
        user_effect=rng.normal(0.0, USER_SD, num_users),
        author_effect=rng.normal(0.0, AUTHOR_SD, len(names))[author % len(names)],
        book_effect=rng.normal(0.0, BOOK_SD, num_books),
        taste=taste,
        rating_user=rating_user,
        rating_book=rating_book,
        rating=np.zeros(len(rating_user), np.int8),
    )
    noisy = world.expected_rating(rating_user, rating_book) + rng.normal(0.0, NOISE_SD, len(rating_user))
    world.rating[:] = np.clip(np.round(noisy), 1, 10)
    return world


def write_synthetic(folder: Path, settings: SyntheticSettings, seed: int) -> SyntheticWorld:
    """Generate a world and write `BX-Users.csv`, `BX-Books.csv` and `BX-Book-Ratings.csv` into `folder`.

    Returns:
        The world, for tests that compare a model with the truth.
    """
    world = generate(settings, seed)
    rng = np.random.default_rng([seed, 1])  # profiles and years do not disturb the ratings' random numbers
    folder.mkdir(parents=True, exist_ok=True)
    ages = [f'"{age}"' if age else "NULL" for age in _ages(settings.num_users, rng)]
    places = rng.choice(LOCATIONS, settings.num_users)
    users = [f'"{user}";"{place}";{age}' for user, place, age in zip(world.user_ids, places, ages, strict=True)]
    years = rng.integers(1960, 2004, settings.num_books)
    publishers = [f"{list(GENRES)[genre].title()} Press" for genre in world.book_genre]
    books = [
        ";".join(f'"{field}"' for field in fields)
        for fields in zip(world.item_ids, world.titles, world.authors, years, publishers, strict=True)
    ]
    ratings = [
        f'"{world.user_ids[user]}";"{world.item_ids[book]}";"{rating}"'
        for user, book, rating in zip(world.rating_user, world.rating_book, world.rating, strict=True)
    ]
    _write(folder / "BX-Users.csv", '"User-ID";"Location";"Age"', users)
    _write(folder / "BX-Books.csv", '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher"', books)
    _write(folder / "BX-Book-Ratings.csv", '"User-ID";"ISBN";"Book-Rating"', ratings)
    return world


def _authors(book_genre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[B] author numbers; author a writes in genre a modulo the number of genres."""
    per_genre = max(1, round(len(book_genre) / len(GENRES) / BOOKS_PER_AUTHOR))
    return rng.integers(0, per_genre, len(book_genre)) * len(GENRES) + book_genre


def _taste(num_users: int, num_genres: int, rng: np.random.Generator) -> np.ndarray:
    """[U, G], rows sum to 0."""
    taste = np.zeros((num_users, num_genres))
    taste[:, :NUM_LIKED_GENRES] = LIKING
    taste[:, NUM_LIKED_GENRES : NUM_LIKED_GENRES + NUM_DISLIKED_GENRES] = -LIKING
    taste = rng.permuted(taste, axis=1) + rng.normal(0.0, TASTE_SD, taste.shape)
    return taste - taste.mean(axis=1, keepdims=True)


def _choices(
    settings: SyntheticSettings,
    taste: np.ndarray,
    popularity: np.ndarray,
    book_genre: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw each user's books without repetition (Gumbel top-k): users [R], books [R], in order of choice."""
    rates = rng.gamma(4.0, max(settings.mean_ratings_per_user - 1.0, 0.0) / 4.0, settings.num_users)
    lengths = np.minimum(1 + rng.poisson(rates), settings.num_books)
    books = []
    for user, length in enumerate(lengths):
        keys = popularity + CHOICE_BIAS * taste[user, book_genre] + rng.gumbel(size=settings.num_books)
        books.append(np.argsort(-keys, kind="stable")[:length])
    return np.repeat(np.arange(settings.num_users), lengths), np.concatenate(books)


def _titles(book_genre: np.ndarray, rng: np.random.Generator) -> list[str]:
    """[B] distinct titles; when a genre's words run out, they start again as volume 2."""
    stocks = [rng.permutation(genre_titles(*words)) for words in GENRES.values()]
    used = [0] * len(stocks)
    titles = []
    for genre in book_genre:
        volume, index = divmod(used[genre], len(stocks[genre]))
        titles.append(f"{stocks[genre][index]}{f' {volume + 1}' if volume else ''}")
        used[genre] += 1
    return titles


def _isbn(number: int) -> str:
    """ISBN-10 with its check digit, which may be X."""
    digits = f"{number:09d}"
    check = sum(weight * int(digit) for weight, digit in zip(range(1, 10), digits, strict=True)) % 11
    return digits + ("X" if check == 10 else str(check))


def _ages(num_users: int, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(num_users) < UNKNOWN_AGE_SHARE, 0, rng.integers(12, 81, num_users))


def _write(path: Path, header: str, lines: list[str]) -> None:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="latin-1")
