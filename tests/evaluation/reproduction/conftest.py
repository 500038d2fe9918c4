import pytest

from optirag_core.evaluation.reproduction.document import Document
from tests.evaluation.reproduction import example


@pytest.fixture(scope="session")
def document() -> Document:
    return example.document()
