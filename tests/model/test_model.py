"""Any order of starts, stops, ends, edits, deletes and limits keeps every rule, and nothing is stuck in the end."""

from collections.abc import Iterator

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from pytest_django import Settings

from tests.model.machine import Model
from tests.model.world import Clock, Repository


@pytest.fixture
def model(
    db: None, settings: Settings, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[Model]]:
    folder = tmp_path_factory.mktemp("model")
    settings.HUSKIES_HOME = folder / "data"
    settings.HUSKIES_NO_QUEUE = True
    settings.HUSKIES_UNCONFINED = True
    clock = Clock()
    repository = Repository(folder)
    monkeypatch.setattr(timezone, "now", clock)
    yield type("TheModel", (Model,), {"repository": repository, "clock": clock})


def run(model: type[Model], runs: int, steps: int) -> None:
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_order_of_events_breaks_a_rule(model):
    run(model, 4, 40)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_order_of_events_breaks_a_rule_in_two_hundred_long_runs(model):
    model.quick = False
    run(model, 200, 50)
