"""A line of any length costs the supervisor no more memory than a short one (P4b)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django import Settings

from tests.benchmarks.ingest_memory import MIB, MOST_GROWTH, growth


@pytest.mark.django_db(transaction=True)
@pytest.mark.on_sqlite
@pytest.mark.parametrize(
    "size",
    [32 * MIB, pytest.param(1024 * MIB, marks=[pytest.mark.long, pytest.mark.timeout(600)])],
    ids=["32 MiB", "1 GiB"],
)
def test_the_supervisor_does_not_grow_on_an_endless_line(
    size: int, tmp_path: Path, settings: Settings
) -> None:
    settings.HUSKIES_HOME = tmp_path
    grown, _ = growth(size)
    assert grown <= MOST_GROWTH
