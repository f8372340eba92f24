"""What the tests of the project file share."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agents.agentfile import AgentsParser
from pipeline.projectfile import SectionParser

RUNTIMES = {"claude-code": (), "scripted": ("script",), "other-program": ("command", "args")}


@pytest.fixture(scope="session")
def sections() -> Mapping[str, SectionParser]:
    return {"agents": AgentsParser(RUNTIMES)}
