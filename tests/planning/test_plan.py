import psutil
import pytest

from optirag_core.errors import ConfigError
from optirag_core.planning.accelerators import ACCELERATORS, GIB, measured_cpu
from optirag_core.planning.plan import plan
from tests.planning.conftest import pretrained

ON_A100 = {
    "training": {"llm": {"num_gpus_per_worker": 1, "accelerator_type": "A100"}},
    "actors": {"num_gpus_per_scorer": 0.5, "num_scorers": 4, "accelerator_type": "L4"},
}


@pytest.fixture(scope="module")
def planned(small_llm, tmp_path_factory):
    return plan(pretrained(small_llm, tmp_path_factory.mktemp("empty"), **ON_A100))


def test_both_ways_to_tune_and_the_one_that_is_configured(planned):
    assert [(stage.job, stage.chosen) for stage in planned.stages] == [
        ("tune_llm", True), ("tune_llm", False), ("exit_features", True), ("train_exit_heads", True), ("score", True)
    ]  # fmt: skip
    assert planned.num_parameters == 1640


def test_hours_are_flops_over_the_share_of_the_published_peak(planned):
    lora, _, features, _, score = planned.stages
    assert lora.hours == pytest.approx(lora.flops / (19.5e12 * 0.40) / 3600)  # float32, 1 worker
    for stage in (features, score):  # 4 scorers on half an L4 each
        assert stage.hours == pytest.approx(stage.flops / (4 * 0.5 * 30.3e12 * 0.50) / 3600)


def test_the_room_is_a_share_of_the_memory(planned):
    assert planned.stages[0].device.room == 40 * GIB * 0.9
    assert planned.stages[-1].device.room == 24 * GIB * 0.9 * 0.5


def test_settings_of_the_plan_win(small_llm, tmp_path):
    settings = pretrained(
        small_llm, tmp_path, **ON_A100,
        plan={"accelerator_type": "H100", "gpu_memory_gib": 1e-6, "memory_share": 1.0, "training_utilization": 0.1},
    )  # fmt: skip
    first = plan(settings).stages[0]
    assert first.hours == pytest.approx(first.flops / (67e12 * 0.1) / 3600)
    assert not first.fits
    assert first.notes[0].startswith(
        "DOES NOT FIT: it needs 0.0 GiB per worker, and H100 has 0.0 GiB to fill; not held"
    )


@pytest.mark.parametrize("name", [None, "T4"])
def test_a_gpu_without_figures(small_llm, tmp_path, name):
    training = {"llm": {"num_gpus_per_worker": 1, "accelerator_type": name}}
    with pytest.raises(ConfigError, match=f"no figures of accelerator type {name}: set plan.accelerator_type to the"):
        plan(pretrained(small_llm, tmp_path, training=training))


def test_more_workers_than_rows_are_told(small_llm, tmp_path):
    """1,164 tokens of a prompt with its answers fill a batch of 64 alone: 3 of 4 workers have none."""
    settings = pretrained(small_llm, tmp_path, training={"llm": {"num_workers": 4}})
    [note] = [note for note in plan(settings).stages[0].notes if "batches of 1 prompts" in note]
    assert "use 25% of 4 workers: batch_tokens 4,656 gives each worker one (now 64)" in note


def test_a_frozen_prefix_is_one_more_pass_of_the_policys_prompts(small_llm, tmp_path):
    planned = [plan(pretrained(small_llm, tmp_path, exit_features={"frozen_prefixes": frozen})) for frozen in ([], [1])]
    (one, counts), (two, _) = ((each.stages[2].flops, each.counts) for each in planned)
    assert 0 < counts.policy_prompts < counts.labelled_prompts
    assert two == pytest.approx(one * (1 + counts.policy_prompts / counts.labelled_prompts))


def test_processes_share_the_cores(small_llm, tmp_path):
    """One process may use them all; N times as many get 1/N each."""
    cores = psutil.cpu_count()
    devices = [
        plan(
            pretrained(small_llm, tmp_path, actors={"num_scorers": number, "torch_threads": cores})
        ).stages[-1].device
        for number in (1, 4)
    ]  # fmt: skip
    assert [device.share for device in devices] == [1.0, 0.25]


def test_the_types_are_rays():
    accelerators = pytest.importorskip("ray.util.accelerators.accelerators")
    assert set(ACCELERATORS) <= {value for name, value in vars(accelerators).items() if name.startswith("NVIDIA_")}


def test_the_cpus_rate_is_a_real_one():
    assert 1e8 < measured_cpu(1).peak_flops["float32"] < 1e13
