"""The estimate against what torch allocates; freed memory that stays."""

import platform
import subprocess
import sys
from collections.abc import Callable

import pytest
from torch.profiler import profile
from transformers import LlamaConfig

from optirag_core.engine.cost import ModelShape
from optirag_core.engine.criterion import discrepancy, window_values
from optirag_core.engine.memory import run_bytes
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer
from tests.engine.models import ANSWERS, random_group, random_heads, tiny_model

WIDE = {"vocab_size": 50, "hidden_size": 128, "num_hidden_layers": 6, "max_position_embeddings": 512}
CONFIGS = {
    "wide mlp": LlamaConfig(**WIDE, intermediate_size=344, num_attention_heads=4),
    "narrow mlp": LlamaConfig(**WIDE, intermediate_size=64, num_attention_heads=4),
    "shared keys": LlamaConfig(**WIDE, intermediate_size=344, num_attention_heads=8, num_key_value_heads=2),
}
GROUPS = [random_group(200, [20] * 20, seed) for seed in range(6)]
STEP = 1300  # two groups of 600


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that torch's allocations of a run add up to at a time."""
    with profile(profile_memory=True) as profiler:
        run()
    live = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("exits", ["none", "all", "half", "never"])
def test_a_run_stays_within_its_estimate(name, exits):
    model = tiny_model(CONFIGS[name])
    heads = random_heads(model, (3, 4))
    policy = ExitPolicy("none" if exits == "none" else "ratio", 3, {"all": 1e9}.get(exits, 0.0))
    if exits == "half":
        logits = Scorer(model, heads, policy, ANSWERS).trace(GROUPS).logits
        policy = ExitPolicy("ratio", 3, discrepancy(window_values(logits[:, 0], "ratio")).median().item())
    scorer = Scorer(model, heads, policy, ANSWERS, max_tokens_in_flight=2 * STEP)
    scorer.score(GROUPS[:1])

    measured = peak_bytes(lambda: scorer.score(GROUPS))

    estimate = run_bytes(
        ModelShape.of(model.config), step_tokens=STEP, step_pairs=40, max_tokens=2 * STEP, window=3, bytes_per_value=4
    )
    assert 0.4 * estimate < measured < 1.2 * estimate


FAULTS = """
import resource, sys, torch
from optirag_core.engine.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(3):
    torch.ones(8 << 20)  # 32 MiB
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(8 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_kept_memory_is_not_asked_for_again():
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", FAULTS, way], check=True, capture_output=True, text=True).stdout)
        for way in ("keep", "default")
    )

    assert kept < 100 < 10_000 < given_back  # pages of 4 KiB: 8,192 an array
