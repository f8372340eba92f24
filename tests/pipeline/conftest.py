"""A server that is stepped by hand, in a data folder of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from tests.pipeline.worlds import World


@pytest.fixture
def world(tmp_path: Path, settings: Settings, transactional_db: None) -> Iterator[World]:
    """Gates run confined where this machine can confine, and unconfined elsewhere."""
    settings.HUSKIES_HOME = tmp_path / "data"
    settings.HUSKIES_NO_QUEUE = True
    settings.HUSKIES_UNCONFINED = True
    made = World(tmp_path)
    yield made
    made.close()
