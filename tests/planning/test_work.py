"""Steps and FLOPs by hand, and against what torch counts in a real forward and backward."""

import pytest
from torch.utils.flop_counter import FlopCounterMode

from optirag_core.config.llm import PretrainedSettings
from optirag_core.engine.cost import ModelShape
from optirag_core.planning.counts import Counts
from optirag_core.planning.llm import tuned_model
from optirag_core.planning.work import heads_flops, row_cost, rows_per_batch, scoring_flops, tuning_work
from optirag_core.training.answers import answer_loss
from optirag_core.training.samples import VALIDATION_USERS
from tests.planning.conftest import SMALL, pretrained
from tests.planning.test_activations import BATCH, CONFIG, real_module

SHAPE = ModelShape.of(SMALL)
#  a layer, per token: 2 (4*8*8 + 3*8*16) = 1280; attention of 10 tokens: 4*8*10*10 = 3200
COUNTS = Counts(
    prompts=10, candidates=2, labelled_prompts=0, labelled_pairs=0, policy_prompts=0, test_prompts=0,
    head_answers=0,
    prefix_tokens=6, cold_prefix_tokens=2, suffix_tokens=2, ratings=0, sources=(),
)  # fmt: skip


@pytest.fixture
def models(small_llm, tmp_path):
    settings = pretrained(small_llm, tmp_path)
    return {way: tuned_model(SMALL, settings, way) for way in ("full", "lora")}


def test_a_row_of_10_tokens_with_all_weights(models):
    row = row_cost(SHAPE, models["full"], "full", 10, 100, recompute=False)
    assert (row.forward, row.training) == (25600 + 6400, 3 * (25600 + 6400 + 100))
    assert row_cost(SHAPE, models["full"], "full", 10, 100, recompute=True).training == row.training + row.forward


def test_a_lora_needs_no_gradients_of_frozen_weights(models):
    """128 adapters: 2 * 128 * 10 FLOPs forward."""
    row = row_cost(SHAPE, models["lora"], "lora", 10, 100, recompute=False)
    assert (row.forward, row.training) == (25600 + 6400 + 2560, 2 * (25600 + 100) + 3 * (6400 + 2560))


@pytest.mark.parametrize(("way", "tolerance"), [("full", 0.01), ("lora", 0.1)])
def test_it_is_what_torch_counts(way, tolerance, tmp_path):
    """Of a LoRA less, as nothing below its first layer is differentiated: 1 of 4 here."""
    settings = pretrained(tmp_path, tmp_path)
    module = real_module(settings, way)
    module.llm.set_attn_implementation("eager")  # whose products are counted
    with FlopCounterMode(display=False) as counter:
        answer_loss(module, BATCH, rating_weight=0.5).backward()

    row = row_cost(
        ModelShape.of(CONFIG), tuned_model(CONFIG, settings, way), way, 120, 2 * 64 * 300 * 6, recompute=False
    )
    assert 3 * row.training == pytest.approx(counter.get_total_flops(), rel=tolerance)


def work(models, *, num_workers=1, **settings):
    given = PretrainedSettings(path="x", **{"batch_tokens": 30, "select_epoch": False} | settings)
    return tuning_work(
        SHAPE, models["full"], "full", given, COUNTS, vocab_size=40, num_workers=num_workers, recompute=False
    )


def test_steps(models):
    """Prompts of 10 tokens, 3 in a batch of 30: 4 batches an epoch; cold ones of 6 tokens, 5 in a batch: 2."""
    assert work(models).steps == 4
    assert work(models, epochs=2, batches_per_step=3).steps == 8 // 3
    assert work(models, cold_start_epochs=2).steps == 2 * 2 + 4
    assert work(models, cold_start_epochs=2, max_steps=5).steps == 5


def test_flops_of_all_prompts_and_validations(models):
    row, validation = 3 * 32000, VALIDATION_USERS * 32000
    assert work(models).flops == 10 * row + validation
    assert work(models, epochs=3).flops == 30 * row + validation
    assert work(models, max_steps=2).flops == 2 * 3 * row + validation
    assert work(models, select_epoch=True).flops == 10 * row + validation * 3  # before, after, and at the end


def test_the_busiest_of_two_workers_does_two_of_three_rows(models):
    validation = VALIDATION_USERS * 32000
    assert work(models, num_workers=2).busiest == pytest.approx(10 * 3 * 32000 * 2 / 3 + validation)


def test_rows_of_a_batch():
    assert [rows_per_batch(4096, tokens) for tokens in (5000, 4096, 1300, 1024)] == [1, 1, 3, 4]


def test_scoring_is_the_engines_cost():
    """10 prefix tokens, 2 candidates of 4, 2 layers: one whole layer, then keys and values, and 2 last tokens."""
    linear = (10 + 8 + 2) * 1280 + (10 + 6) * 4 * 8 * 8
    attention = 2 * 8 * 100 + 2 * (4 * 8 * (4 * (10 + 2)) + 4 * 8 * (10 + 4))
    assert scoring_flops(SHAPE, 3, 2, 10, 4) == 3 * (linear + attention)


def test_heads():
    assert heads_flops(8, num_heads=3, answers=5, epochs=2, vocab_size=0) == 3 * 2 * 5 * 3 * 2 * 8 * 2
