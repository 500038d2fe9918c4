"""What a study asks of the LLM beside the run."""

import re

import pytest

from optirag_core.engine.cost import ModelShape
from optirag_core.evaluation.reproduction.cells import LlmWork, llm_work
from optirag_core.planning.plan import plan
from optirag_core.planning.study import plan_study
from optirag_core.planning.work import scoring_flops
from ray_jobs.plan import print_plan
from tests.planning.conftest import SMALL, pretrained


@pytest.fixture
def study(small_llm, tmp_path):
    def of(**reproduce):
        return pretrained(small_llm, tmp_path, reproduce=reproduce, prompt={"num_similar_users": 2})

    return of


@pytest.mark.parametrize(
    ("parts", "each", "shared"),
    [
        (["leaks", "table1", "figure3", "figure4"], (0, False, []), (0, False, [])),
        (["table2"], (2, False, []), (0, False, [0, 2])),  # none, text
        (["table2", "table4"], (2, False, []), (0, False, [0, 2])),  # none once for both
        (["table3", "table5"], (3, False, []), (0, False, [2, 2, 2])),  # last, weighted, FM
        (["table9", "ours"], (0, True, [2, 2]), (0, True, [2, 2])),  # pruned and frozen
        (["figure6"], (0, False, [0, 1, 2]), (0, False, [0, 1, 2])),
    ],
)
def test_llms_and_passes_of_each_part(study, parts, each, shared):
    for tune, expected in (("each", each), ("shared", shared)):
        work = llm_work(study(parts=parts, tune=tune, num_similar_users=[0, 1, 2]))
        assert work == LlmWork(*expected), tune


def test_an_llm_for_each_row_is_tuned_and_read_as_often(study):
    settings = study(parts=["table2", "table3", "table5"], tune="each")
    run = {stage.job: stage for stage in plan(settings).stages if stage.chosen}

    *own, tuned, features = plan_study(settings).stages

    assert [stage.job for stage in own] == ["tune_llm", "tune_llm", "exit_features", "train_exit_heads"]
    for more, once in ((tuned, run["tune_llm"]), (features, run["exit_features"])):
        assert more.name == f"{once.name}, 5 times more"
        assert (more.flops, more.hours) == pytest.approx((5 * once.flops, 5 * once.hours))
    assert tuned.steps == 5 * run["tune_llm"].steps


def test_passes_are_as_long_as_their_prompts(study):
    settings = study(parts=["figure6"], num_similar_users=[0, 1])
    counts, shape = plan(settings).counts, ModelShape.of(SMALL)
    cold, warm = counts.cold_prefix_tokens, counts.prefix_tokens  # warm has 2 similar users

    added = plan_study(settings).stages[-1]

    prefixes = [cold, (cold + warm) / 2]
    candidates = counts.labelled_pairs / counts.labelled_prompts
    assert added.name == f"exit_features, 2 times more for {counts.test_prompts:,} test prompts"
    assert added.flops == pytest.approx(
        sum(scoring_flops(shape, counts.test_prompts, candidates, each, counts.suffix_tokens) for each in prefixes)
    )


def test_table_9_tunes_a_smaller_llm_and_reads_the_pruned_one_once(study):
    settings = study(parts=["table9"])
    counts = plan(settings).counts

    *_, tuned, features, pruned = plan_study(settings).stages

    assert tuned.name == "tune_llm, all weights, a smaller LLM"
    assert features.name.endswith(" pairs, a smaller LLM")
    candidates = counts.labelled_pairs / counts.labelled_prompts
    assert pruned.flops == pytest.approx(
        scoring_flops(ModelShape.of(SMALL), counts.test_prompts, candidates, counts.prefix_tokens, counts.suffix_tokens)
    )


def test_the_job_prints_it(study, capsys):
    print_plan(study(parts=["table2"], tune="each"), "reproduce")

    printed = capsys.readouterr().out
    assert re.search(r"^\* +tune_llm, LoRA of rank 2, 2 times more ", printed, re.MULTILINE)
    assert "CTR models and what it times are not counted" in printed and " score, " not in printed
