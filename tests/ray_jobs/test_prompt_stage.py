import pytest

from optirag_core.config import PromptSettings
from optirag_core.data.dataset import Dataset
from optirag_core.data.loading import load_raw
from optirag_core.data.rows import Rows
from optirag_core.data.splits import split_interactions
from optirag_core.data.synthetic import write_synthetic
from optirag_core.prompting.builder import Context, PromptBuilder
from optirag_core.prompting.history import Shown
from ray_jobs.prompt_stage import scratch_tokenizer

from .conftest import tiny_settings


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    settings = tiny_settings(folder := tmp_path_factory.mktemp("synthetic")).dataset
    write_synthetic(folder, settings.synthetic, 0)
    raw = load_raw(settings, folder=folder)
    return Dataset(split_interactions(raw.ratings, settings, seed=0), raw.users, raw.items, {})


def test_a_tokenizer_from_scratch_spends_tokens_on_the_words_of_titles_and_two_more_per_entry(dataset):
    settings = PromptSettings(template="books")
    items, users = Rows(dataset.items, "item_id"), Rows(dataset.users, "user_id")
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
