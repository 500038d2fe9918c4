"""The two places that files can be in, each behind the same operations."""

import pytest

from optirag_core.config.run import StorageSettings
from optirag_core.storage.base import Storage, open_storage

QUICK = StorageSettings(max_attempts=10, connect_timeout_s=2.0, read_timeout_s=2.0)
"""As patient as the default, but a hanging server is left after 2 s."""


@pytest.fixture
def s3_storage(s3_bucket: str) -> Storage:
    return open_storage(f"{s3_bucket}/some/prefix", QUICK)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def storage(request: pytest.FixtureRequest) -> Storage:
    if request.param == "s3":
        return request.getfixturevalue("s3_storage")
    return open_storage(str(request.getfixturevalue("tmp_path") / "a place #1"), QUICK)
