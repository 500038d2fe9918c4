"""What the compared systems change in the settings."""

import pytest

from optirag_core.config_file import settings_from
from optirag_core.evaluation.reproduction.variants import FM, LAST, NONE, SMALLER, TEXT, WEIGHTED, changed, changes

SETTINGS = settings_from({"workspace": "s3://bucket/run"})


@pytest.mark.parametrize("name", [NONE, TEXT, LAST, WEIGHTED, FM, SMALLER])
def test_a_variant_has_valid_settings_in_another_workspace_and_changes_its_own_sections_alone(name):
    change = changes(SETTINGS, text_encoder="/models/encoder")[name]

    other = changed(SETTINGS, change, workspace="s3://bucket/run/reproduction")

    assert other.workspace == "s3://bucket/run/reproduction"
    differing = {key for key in type(SETTINGS).model_fields if getattr(other, key) != getattr(SETTINGS, key)}
    assert differing - {"workspace"} == set(change)


def test_the_smaller_llm_has_half_the_width():
    other = changed(SETTINGS, changes(SETTINGS, text_encoder="x")[SMALLER])

    assert other.llm.scratch.shape.hidden_size == SETTINGS.llm.scratch.shape.hidden_size // 2
    assert other.llm.scratch.shape.num_layers == SETTINGS.llm.scratch.shape.num_layers


def test_beside_a_pretrained_llm_the_smaller_one_is_trained_from_scratch():
    raw = {"llm": {"init": "pretrained", "pretrained": {"path": "/models/vicuna"}}, "exit_heads": {"layers": [5, 10]}}
    other = changed(settings_from(raw), changes(settings_from(raw), text_encoder="x")[SMALLER])

    assert other.llm.init == "scratch" and other.exit_heads.layers == (3, 4)
