"""Hand-computed bytes of the small Llama: 1,640 parameters, 656 of a layer, 328 outside of the layers."""

import pytest
import torch

from optirag_core.engine.cost import ModelShape
from optirag_core.planning.accelerators import GIB, Device, accelerator
from optirag_core.planning.activations import Activations
from optirag_core.planning.counts import count
from optirag_core.planning.llm import planned_config, tuned_model
from optirag_core.planning.memory import scoring_memory, tuning_memory
from optirag_core.planning.tuning import PlannedTuning
from optirag_core.planning.work import busiest_tokens
from tests.planning.conftest import SMALL, pretrained


@pytest.fixture
def memory(small_llm, tmp_path):
    model = tuned_model(SMALL, pretrained(small_llm, tmp_path), "full")

    def memory(num_workers, parallelism, **changes):
        given = {"computes_in": torch.float32, "saved_bytes": 0, "on_gpu": False} | changes
        return tuning_memory(model, 1000.0, num_workers=num_workers, parallelism=parallelism, **given)

    return memory


def test_one_worker(memory):
    alone = memory(1, "ddp")
    assert alone.parts == {"weights": 6560, "gradients": 6560, "moments": 13120, "activations": 1000}
    assert alone.peak == 6560 + 6560 + 13120 + 1000


def test_ddp_keeps_the_gradients_twice(memory):
    assert memory(2, "ddp").peak == memory(1, "ddp").peak + 6560


def test_fsdp_divides_and_holds_layers_whole(memory):
    parts = memory(4, "fsdp", computes_in=torch.bfloat16)
    assert (parts.weights, parts.gradients, parts.moments) == (1640, 1640, 3280)
    # Weights of the root and two layers in bfloat16; gradients of the root and one layer in both types.
    assert parts.whole_layers == 2 * (328 + 2 * 656) + 6 * (328 + 656)
    assert parts.peak == 1640 + 1640 + 3280 + parts.whole_layers + 1000


def test_adamws_temporaries_and_the_whole_llm_may_be_the_peak(memory):
    assert memory(1, "ddp", on_gpu=True).peak == 6560 + 6560 + 13120 + 6560  # more than 1,000 of activations
    assert memory(1, "ddp", saved_bytes=10**6).peak == 10**6


def test_recompute_keeps_inputs_and_one_layer():
    batch = Activations(fixed=5, row=7, layer=2, layer_row=100, layer_input=10, num_layers=4)
    assert batch.kept(3, recompute=False) == 5 + 4 * 2 + 3 * (7 + 400)
    assert batch.kept(3, recompute=True) == 5 + 4 * 2 + 3 * (7 + 40 + 100)
    assert batch.peak(3, recompute=True) == 5 + 4 * 2 + 3 * (7 + 40 + 125)


def test_a_scorer():
    shape = ModelShape(num_layers=2, width=8, mlp_width=16, query_width=8, key_width=4)
    # 100 hidden states; 50 in a layer: 2*8 normed, and of the MLP 3*16, more than attention's 3*8 + 4*4
    assert scoring_memory(shape, 3280, 100, torch.bfloat16) == 3280 + 1600 + 50 * (2 * 64 + 4 * 8)


@pytest.mark.parametrize(
    ("num_workers", "tokens"),
    [(1, 4096), (2, 2730.67), (3, 2048), (64, 2048)],
)
def test_tokens_of_the_worker_that_has_most(num_workers, tokens):
    """Of 4,096: 1 row of 2,048 at most, 2 of 2,048 or 3 of 1,365; of 3, one of 2 workers has 2."""
    assert busiest_tokens(4096, 1200, 2048, num_workers) == pytest.approx(tokens, abs=0.01)


def test_a_row_that_is_longer_than_a_batch():
    assert busiest_tokens(100, 300, 2048, 4) == 2048


def test_the_least_workers_that_hold_a_7b_llm(tmp_path):
    """All weights of Vicuna-7B: 25 GiB of weights, 25 of gradients, 50 of moments."""
    settings = pretrained(tmp_path / "absent", tmp_path, llm={"dtype": "bfloat16"}, prompt={"max_tokens": 1024})
    planned = PlannedTuning.of(planned_config(settings)[0], settings, "full", count(settings), on_gpu=True)
    a100 = Device(accelerator("A100"), 1.0, 40 * GIB)

    alone = planned.memory(1, "ddp", recompute=True).peak
    assert alone > 100 * GIB
    assert planned.least_workers(a100, "ddp", recompute=True) is None
    least = planned.least_workers(a100, "fsdp", recompute=True)
    assert planned.memory(least, "fsdp", recompute=True).peak <= a100.room
    assert planned.memory(least - 1, "fsdp", recompute=True).peak > a100.room
    assert planned.advice(a100, alone).startswith(
        f"DOES NOT FIT: it needs {alone / GIB:.1f} GiB per worker, and A100 has 40.0 GiB to fill; held by fsdp from "
    )
