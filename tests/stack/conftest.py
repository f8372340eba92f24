"""A real `up`. No test may leave a process of its data folder behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stack.server import Up, wait_until_none


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Up]]:
    """`start(WORD, NAME=value)`: an `up` on the test's data folder."""
    made: list[Up] = []

    def begin(*words: str, **more: str) -> Up:
        made.append(Up(home, *words, **more))
        return made[-1]

    yield begin
    for each in made:
        each.end()
    assert wait_until_none(home) == []
