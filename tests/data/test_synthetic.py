import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from optirag_core.config.data import DatasetSettings, SyntheticSettings
from optirag_core.data.bookcrossing import load_bookcrossing
from optirag_core.data.synthetic import generate, write_synthetic
from optirag_core.data.vocabulary import GENRES

LIKED_ABOVE = 5


@pytest.fixture(scope="module", params=[0, 1, 2])
def world(request):
    return generate(SyntheticSettings(), request.param)


def test_size(world):
    settings = SyntheticSettings()
    assert (len(world.user_ids), len(world.item_ids)) == (settings.num_users, settings.num_books)
    mean = len(world.rating) / settings.num_users
    assert mean == pytest.approx(settings.mean_ratings_per_user, rel=0.05)
    pairs = world.rating_user.astype(np.int64) * settings.num_books + world.rating_book
    assert len(np.unique(pairs)) == len(pairs)
    assert world.rating.min() == 1
    assert world.rating.max() == 10


def test_a_good_half_of_the_ratings_are_likes(world):
    """More than half: readers pick what they expect to like."""
    assert 0.5 < np.mean(world.rating > LIKED_ABOVE) < 0.66


def test_taste_outweighs_author_and_book_outweigh_the_user(world):
    users, books = world.rating_user, world.rating_book
    taste = world.taste[users, world.book_genre[books]].var()
    author = (world.author_effect + world.book_effect)[books].var()
    user = world.user_effect[users].var()
    assert taste > 1.2 * author
    assert author > 1.2 * user


def test_the_user_mean_is_a_weak_predictor_and_the_oracle_a_strong_one(world):
    """The mean is over all other ratings of the user, so it does not see the one it predicts."""
    users, liked = world.rating_user, world.rating > LIKED_ABOVE
    counts = np.bincount(users)[users]
    others = (np.bincount(users, weights=world.rating)[users] - world.rating) / np.maximum(counts - 1, 1)
    scored = counts >= 5
    assert 0.62 < roc_auc_score(liked[scored], others[scored]) < 0.68
    assert roc_auc_score(liked, world.expected_rating(users, world.rating_book)) > 0.9


def test_readers_choose_what_they_like(world):
    chosen = world.taste[world.rating_user, world.book_genre[world.rating_book]].mean()
    any_book = world.taste[:, world.book_genre].mean()
    assert chosen > any_book + 0.4


def test_titles_are_distinct_and_of_their_genres_own_words(world):
    assert len(set(world.titles)) == len(world.titles)
    words = {genre: set(" ".join(texts).split()) for genre, texts in GENRES.items()}
    assert sum(map(len, words.values())) == len(set().union(*words.values()))
    for title, genre in zip(world.titles, world.book_genre, strict=True):
        parts = [part for part in title.split() if part not in {"The", "of", "the"}]
        assert 2 <= len(title.split()) <= 4
        assert set(parts) <= words[list(GENRES)[genre]]


def test_an_author_writes_in_one_genre(world):
    genres = {}
    for author, genre in zip(world.authors, world.book_genre, strict=True):
        genres.setdefault(author, set()).add(genre)
    assert all(len(found) == 1 for found in genres.values())


def test_many_books_still_have_distinct_titles():
    world = generate(SyntheticSettings(num_users=10, num_books=2500), 0)
    assert len(set(world.titles)) == 2500
    assert any(title.endswith(" 2") for title in world.titles)


def test_written_files_load_as_the_same_world(tmp_path):
    settings = SyntheticSettings(num_users=60, num_books=40)
    world = write_synthetic(tmp_path, settings, seed=3)
    data = load_bookcrossing(tmp_path, DatasetSettings(max_malformed_share=0.0))
    assert data.warnings == ()
    assert data.items["item_id"].to_pylist() == world.item_ids
    assert data.items["title"].to_pylist() == world.titles
    assert data.items["author"].to_pylist() == world.authors
    assert data.users["user_id"].to_pylist() == world.user_ids
    assert 0 < data.users["age"].null_count < 40
    assert data.ratings["rating"].to_pylist() == world.rating.tolist()
    assert data.ratings["item_id"].to_pylist() == [world.item_ids[book] for book in world.rating_book]


def test_one_seed_one_data_set(tmp_path):
    settings = SyntheticSettings(num_users=30, num_books=20)
    contents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_synthetic(tmp_path / name, settings, seed)
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1]
    assert all(first != other for first, other in zip(contents[0], contents[2], strict=True))
