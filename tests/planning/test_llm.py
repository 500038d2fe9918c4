import pytest
import torch

from optirag_core.config_file import settings_from
from optirag_core.errors import ModelError
from optirag_core.planning.llm import meta_model, num_parameters, planned_config, tuned_model
from tests.planning.conftest import SMALL, pretrained


def test_all_weights_by_hand(small_llm, tmp_path):
    """AdamW keeps two float32 numbers of each."""
    model = tuned_model(SMALL, pretrained(small_llm, tmp_path), "full")

    assert (model.num_parameters, model.num_trained) == (1640, 1640)
    assert (model.weight_bytes, model.gradient_bytes, model.moment_bytes) == (4 * 1640, 4 * 1640, 8 * 1640)
    assert (model.layer_parameters, model.root_parameters) == ((656, 656), (328, 328))


def test_a_lora_in_bfloat16_by_hand(small_llm, tmp_path):
    """2 layers x 2 modules x 2 (8 + 8) = 128 adapters in float32, beside 1,640 frozen weights in bfloat16."""
    model = tuned_model(SMALL, pretrained(small_llm, tmp_path, llm={"dtype": "bfloat16"}), "lora")

    assert (model.num_parameters, model.num_trained) == (1640 + 128, 128)
    assert (model.weight_bytes, model.gradient_bytes, model.moment_bytes) == (2 * 1640 + 4 * 128, 4 * 128, 8 * 128)
    assert (model.layer_parameters, model.root_parameters) == ((656 + 64, 64), (328, 0))


def test_a_model_from_scratch_keeps_one_moment_of_muons_matrices():
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_layers": 5, "num_heads": 2, "vocab_size": 40}
    settings = settings_from({"llm": {"scratch": {"shape": shape}}})
    config, source = planned_config(settings)

    model = tuned_model(config, settings, "full")

    matrices, rest = 5 * 640, 320 + 8 + 5 * 16
    assert source == "the shape of llm.scratch.shape"
    assert model.num_parameters == matrices + rest
    assert model.moment_bytes == 4 * matrices + 8 * rest


def test_vicuna_where_the_llm_is_not_at_hand(tmp_path):
    """As published: 6,738,415,616 parameters; rank 8 on queries and values, 32 x 2 x 8 x (4096 + 4096) more."""
    settings = pretrained(tmp_path / "absent", tmp_path, llm={"dtype": "bfloat16", "lora": {"rank": 8}})
    config, source = planned_config(settings)

    model = tuned_model(config, settings, "lora")

    assert source.startswith("Vicuna-7B's shape (lmsys/vicuna-7b-v1.5), as ")
    assert num_parameters(config) == model.num_parameters - model.num_trained == 6_738_415_616
    assert model.num_trained == 4_194_304
    parameters = meta_model(config, settings, "lora", torch.bfloat16).parameters()
    assert {parameter.device.type for parameter in parameters} == {"meta"}


def test_a_folder_without_a_config_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="cannot read the config of the LLM at"):
        planned_config(pretrained(tmp_path, tmp_path))
