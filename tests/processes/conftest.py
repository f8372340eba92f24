"""Fixtures for real runners. No test may leave a process behind, also when it failed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.processes.sweep import sweep_marked
from tests.processes.runs import Run

Start = Callable[..., Run]


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Start]:
    """`prepared(step, ..., limit=value)`: a run that is not started yet."""
    made: list[Run] = []

    def prepare(*steps: dict[str, Any], **limits: Any) -> Run:
        made.append(Run(tmp_path / "runs", list(steps), limits))
        return made[-1]

    yield prepare
    for run in made:
        assert sweep_marked(run.key) == []


@pytest.fixture
def started(prepared: Start) -> Start:
    """`started(step, ..., limit=value)`: a run whose runner lives."""

    def start(*steps: dict[str, Any], **limits: Any) -> Run:
        run = prepared(*steps, **limits)
        run.start()
        return run

    return start


@pytest.fixture
def finished(started: Start) -> Start:
    """`finished(step, ..., limit=value)`: a run that has ended by itself."""

    def finish(*steps: dict[str, Any], **limits: Any) -> Run:
        run = started(*steps, **limits)
        run.finish()
        return run

    return finish
