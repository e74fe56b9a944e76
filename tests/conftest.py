"""Settings for every test: hypothesis draws the same examples each time in CI; one place for the shared data."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture
def shared_data() -> Path:
    """The folder that SMELT_DATA names; the test is skipped where it is unset."""
    if not os.environ.get("SMELT_DATA"):
        pytest.skip("SMELT_DATA is unset: it names a folder of small real datasets")
    return Path(os.environ["SMELT_DATA"])
