"""The tiny Llama that most engine tests share."""

import pytest
import torch

from tests.engine.models import CONFIGS, random_heads, tiny_model


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Two threads on layers this small only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model():
    return tiny_model(CONFIGS["llama"])


@pytest.fixture(scope="session")
def heads(model):
    return random_heads(model)
