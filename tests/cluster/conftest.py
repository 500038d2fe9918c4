"""The manifests that each overlay builds, once."""

import pytest

from tests.cluster.manifests import OVERLAYS, Manifest, built


@pytest.fixture(scope="package", params=("dev", "prod", "prod-raycronjob"))
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return built(OVERLAYS / request.param)


@pytest.fixture(scope="package")
def prod() -> list[Manifest]:
    """Every kind of manifest there is."""
    return built(OVERLAYS / "prod-raycronjob")
