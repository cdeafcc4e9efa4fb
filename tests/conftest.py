"""What many tests share.

Random cases are the same in every run, so that a red test means a change; a campaign draws new ones.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests import emulators
from tests.emulators import Emulator

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("campaign", deadline=None)
settings.load_profile("campaign" if "DICOMVEIL_CAMPAIGN" in os.environ else "steady")


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[Emulator]:
    with emulators.gcs() as server:
        yield server


@pytest.fixture(scope="session")
def gcs_in_python() -> Iterator[Emulator]:
    with emulators.gcs_in_python() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[Emulator]:
    with emulators.s3() as server:
        yield server


@pytest.fixture(scope="session")
def azurite() -> Iterator[Emulator]:
    with emulators.azure() as server:
        yield server
