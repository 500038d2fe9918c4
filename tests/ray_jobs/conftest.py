"""Every test of a job finds the session's Ray."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _local_ray(local_ray):
    pass
