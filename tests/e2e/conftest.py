"""A shop: a project with scripted coders, on a real repository, worked by a server that is stepped by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from agents.standin import StandIn
from tests.agent_programs import AgentProgram
from tests.e2e.desk import Desk
from tests.e2e.shop import Shop


@pytest.fixture
def shop(tmp_path: Path, settings: Settings, transactional_db: None) -> Iterator[Shop]:
    """Agents and gates run confined where this machine can confine, and unconfined elsewhere."""
    settings.HUSKIES_HOME = tmp_path / "data"
    settings.HUSKIES_NO_QUEUE = True
    settings.HUSKIES_UNCONFINED = True
    made = Shop(tmp_path)
    yield made
    made.close()


@pytest.fixture
def desk(shop: Shop, program: AgentProgram, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A real agent program at the shop, whose provider is a stand-in that plays what each test says."""
    monkeypatch.setenv(program.variable, str(program.find()))
    with StandIn([]) as fake:
        yield Desk(shop, fake, program)
        assert fake.problems == []
