"""The tokenizer that a data set gives: what its tokens are spent on."""

import pytest

from optirag_core.config.data import DatasetSettings, PromptSettings, SyntheticSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.histories import Shown
from optirag_core.data.loading import load_raw
from optirag_core.data.rows import Rows
from optirag_core.data.splits import split_interactions
from optirag_core.data.synthetic import write_synthetic
from optirag_core.prompting.builder import Context, PromptBuilder
from optirag_core.training.tokenizer import scratch_tokenizer


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    sizes = SyntheticSettings(num_users=120, num_books=60, mean_ratings_per_user=10)
    settings = DatasetSettings(like_threshold=5, synthetic=sizes)
    write_synthetic(folder, sizes, 0)
    raw = load_raw(settings, folder=folder)
    interactions, _ = split_interactions(raw.ratings, settings, seed=0)
    return Dataset(interactions, raw.users, raw.items, {})


def test_a_tokenizer_from_scratch_spends_tokens_on_the_words_of_titles_and_two_more_per_entry(dataset):
    settings = PromptSettings(template="books")
    items, users = Rows.of(dataset.items, "item"), Rows.of(dataset.users, "user")
    builder = PromptBuilder(settings, scratch_tokenizer(settings, dataset, 1_000), items)
    words = [len(items[item_id]["title"].split()) for item_id in items]
    shown = [Shown(item_id, float(place + 1)) for place, item_id in enumerate(items)][:10]
    reader = users.blank("stranger")

    empty = builder.build(Context(reader, [], [(reader, [])]), list(items))
    full = builder.build(Context(reader, shown[:5], [(reader, shown[5:])]), list(items))

    assert len(full.group.prefix) - len(empty.group.prefix) == sum(words[:10]) + 2 * 10
    assert len({full.group.prefix[position] for position in full.rating_positions}) == 10
    # marks on both sides of the title, a sentence and "Answer:"
    assert [len(suffix) for suffix in full.group.suffixes] == [number + 4 for number in words]
