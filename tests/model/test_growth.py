"""No statement that every session passes through looks through what only grows: sessions and processes that are over, events, history."""

from __future__ import annotations

import re
import sys

import pytest
from django.db import connection

from agents.models import Session
from pipeline.models import Process
from pipeline.prepared import Select, Update

GROWS = {
    "agents_session", "agents_ledgerrow", "agents_message", "agents_permissionrequest", "agents_spend", "pipeline_process", "pipeline_logpart",
    "pipeline_event", "pipeline_stagechange", "pipeline_gaterun", "pipeline_merge",
}  # fmt: skip
"""Tables whose rows stay when their work is over."""
LIVE = ("session_live", "process_by_host", "request_waits", "message_waits")
"""Indexes of what is not over: looking through one of them is looking at what runs."""


def plan(sql: str, params: object) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
        return [row[3] for row in cursor.fetchall()]


def looked_through(steps: list[str]) -> list[str]:
    return [
        step
        for step in steps
        if (found := re.match(r"SCAN (\w+)", step))
        and found[1] in GROWS
        and not any(name in step for name in LIVE)
    ]


@pytest.mark.django_db
@pytest.mark.on_sqlite
def test_no_statement_of_a_sessions_way_looks_through_what_is_over() -> None:
    found = {
        f"{module.__name__}.{name}": made
        for module in list(sys.modules.values())
        if module is not None and module.__name__.startswith(("agents.", "pipeline."))
        for name, made in vars(module).items()
        if isinstance(made, Select | Update)
    }
    assert len(found) > 30
    wrong = {
        name: bad for name, made in found.items() if (bad := looked_through(plan(*made.make(connection)[:2])))
    }
    assert wrong == {}


@pytest.mark.django_db
@pytest.mark.on_sqlite
def test_what_is_live_is_found_without_looking_at_what_is_over() -> None:
    for rows in (Session.objects.live(), Process.objects.live(), Process.objects.unhandled()):
        assert looked_through(plan(*rows.query.sql_with_params())) == []
    assert looked_through(plan(*Session.objects.filter(outcome="done").query.sql_with_params())), (
        "it would be seen"
    )
