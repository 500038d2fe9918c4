"""What a batch keeps, against what autograd really keeps and what the allocator really holds, on a CPU."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from optirag_core.engine.groups import UserGroup
from optirag_core.planning.activations import Row, activations
from optirag_core.planning.llm import tuned_model, weights_dtype
from optirag_core.planning.memory import tuning_memory
from optirag_core.training.answers import AnswerLoss, answer_loss
from optirag_core.training.lora import with_lora
from optirag_core.training.packing import Sample, pack
from tests.planning.conftest import pretrained

ROW = Row(tokens=120, answers=2, ratings=6)
CONFIG = LlamaConfig(
    vocab_size=300, hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=False,
)  # fmt: skip
BATCH = [Sample(UserGroup(list(range(80)), [list(range(20))] * 2), [0, 1], list(range(10, 70, 10)))] * 3


def real_module(settings, way):
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG)
    if way == "lora":
        with_lora(model, settings.llm.pretrained.lora, seed=0)
    return AnswerLoss(model, (0, 1)).train()


@pytest.mark.parametrize("way", ["lora", "full"])
def test_it_is_what_autograd_keeps(way, tmp_path):
    settings = pretrained(tmp_path, tmp_path)
    module = real_module(settings, way)
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor, so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(pack(BATCH), ratings=True)

    planned = activations(CONFIG, settings, way, ROW, sharded=False, on_gpu=False).kept(3, recompute=False)
    assert planned == pytest.approx(sum(size for size, _ in kept.values()), rel=0.001)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("way", ["lora", "full"])
def test_a_steps_peak_is_within_a_quarter(way, recompute, tmp_path):
    """Of what one forward and backward allocate: activations and gradients; kernels' temporaries are not planned."""
    settings = pretrained(tmp_path, tmp_path)
    module = real_module(settings, way)
    if recompute:
        module.llm.activation_checkpointing_enable({"use_reentrant": False})

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        answer_loss(module, BATCH, rating_weight=0.5).backward()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)

    planned = tuning_memory(
        tuned_model(CONFIG, settings, way),
        activations(CONFIG, settings, way, ROW, sharded=False, on_gpu=False).peak(3, recompute=recompute),
        num_workers=1, parallelism="ddp", computes_in=weights_dtype(settings, way), saved_bytes=0, on_gpu=False,
    )  # fmt: skip
    assert planned.activations + planned.gradients == pytest.approx(peak, rel=0.25)


def test_gpus_keep_smaller_masks_of_dropout(tmp_path):
    settings = pretrained(tmp_path, tmp_path, llm={"lora": {"rank": 2, "dropout": 0.5, "modules": ["q_proj"]}})
    cpu, gpu = (
        activations(CONFIG, settings, "lora", ROW, sharded=False, on_gpu=on_gpu).layer_row for on_gpu in (False, True)
    )
    assert cpu - gpu == 120 * 64 * (4 - 1)
