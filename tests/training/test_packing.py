import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from optirag_core.training.packing import pack, plan_batches
from tests.conftest import tiny_llama

from .conftest import prompts_of, random_samples, sample

TOKENS = st.integers(0, 39)
SAMPLES = st.builds(
    sample,
    st.lists(TOKENS, min_size=1, max_size=12),
    st.lists(st.lists(TOKENS, min_size=1, max_size=5), min_size=1, max_size=4),
)


@pytest.fixture(scope="module")
def model():
    return tiny_llama(num_hidden_layers=2)


@torch.no_grad()
def packed_logits(model, samples):
    batch = pack(samples)
    logits = model(
        input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).logits  # fmt: skip
    return logits[batch.answer_rows, batch.answer_columns]


@torch.no_grad()
def separate_logits(model, samples):
    return torch.stack([model(input_ids=torch.tensor([ids])).logits[0, -1] for ids in prompts_of(samples)])


@examples(max_examples=40, deadline=None)
@given(st.lists(SAMPLES, min_size=1, max_size=4))
def test_packed_prompts_equal_separate_ones(model, samples):
    """To 1e-5 of logits of about 1 to 10, in fp32."""
    torch.testing.assert_close(packed_logits(model, samples), separate_logits(model, samples), atol=1e-5, rtol=1e-5)


def test_a_candidate_does_not_see_the_others(model):
    group = [5, 6, 7], [[1, 2], [3], [4, 5]]
    together = packed_logits(model, [sample(*group)])
    changed = packed_logits(model, [sample(group[0], [[9, 9], [3], [8, 8]])])
    torch.testing.assert_close(together[1], changed[1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], changed[0], atol=1e-2)


def test_layout_by_hand():
    batch = pack([sample([10, 11], [[20], [30, 31]], [1, 0], [1]), sample([12], [[40]], [1], [0])])
    assert batch.ids.tolist() == [[10, 11, 20, 30, 31], [12, 40, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 2, 3], [0, 1, 0, 0, 0]]
    assert batch.mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]
    assert batch.mask[1, 0, :2].int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
    assert batch.mask.any(-1).all()  # padding, too, looks somewhere: a row of zeros makes NaN
    assert list(zip(batch.answer_rows.tolist(), batch.answer_columns.tolist(), strict=True)) == [(0, 2), (0, 4), (1, 1)]
    assert batch.labels.tolist() == [1.0, 0.0, 1.0]
    assert list(zip(batch.rating_rows.tolist(), batch.rating_columns.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_without_ratings_there_are_no_targets():
    batch = pack([sample([1], [[2]])])
    assert batch.rating_rows.shape == batch.rating_columns.shape == (0,)


def test_one_prefix_for_all_its_candidates():
    assert sample([1, 2, 3], [[4], [5, 6]]).num_tokens == 6


@examples(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 200), st.integers(0, 9))
def test_batches_hold_every_sample_once_within_the_budget(lengths, batch_tokens, seed):
    batches = plan_batches(lengths, batch_tokens, torch.Generator().manual_seed(seed))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(batches)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= batch_tokens
    assert batches == plan_batches(lengths, batch_tokens, torch.Generator().manual_seed(seed))


def test_batches_are_full_of_tokens_and_random():
    lengths = torch.randint(100, 1_000, (2_000,), generator=torch.Generator().manual_seed(0)).tolist()
    batches = plan_batches(lengths, 8_192, torch.Generator().manual_seed(0))
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    assert padded < 1.05 * sum(lengths)
    assert len(batches) < 1.1 * padded / 8_192 + 1
    assert batches != plan_batches(lengths, 8_192, torch.Generator().manual_seed(1))


def test_short_and_long_batches_come_in_any_order():
    batches = plan_batches(range(1, 100), 400, torch.Generator().manual_seed(0))
    longest = [max(batch) for batch in batches]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


def test_random_samples_pack_as_they_are(model):
    samples = random_samples(8)
    assert len(packed_logits(model, samples)) == len(prompts_of(samples))
