"""What follows from each end: one table, total, and one rule of charges."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtimes.base import OutcomeKind
from agents.services.deciding import Decision, End, decide
from agents.states import Outcome, StopCause

SERVERS_OWN = {"no_change", "memory_limit", "disk_limit", "host_lost", "workspace_lost", "not_started"}
"""Outcomes that no output of a program can tell."""
ends = st.builds(
    End,
    kind=st.sampled_from(Outcome.values),
    reason=st.just("It ended."),
    detail=st.sampled_from(
        ["", "not_begun", "server", "shared", "program", "conversation_missing", "conversation_in_use"]
    ),
    until=st.none() | st.floats(0, 2e9),
    changed=st.booleans(),
    moved=st.booleans(),
    committed=st.booleans(),
    resumed=st.booleans(),
)


def test_the_outcomes_are_one_closed_set_for_parsers_table_and_rows() -> None:
    assert set(get_args(OutcomeKind)) | SERVERS_OWN == set(Outcome.values)
    assert not set(get_args(OutcomeKind)) & SERVERS_OWN
    # Each cause of a stop but a person's and the server's is the outcome that it leads to.
    assert set(StopCause.values) - {"person", "server"} <= set(Outcome.values)


@given(ends)
def test_every_end_has_a_decision_with_a_reason(end: End) -> None:
    decision = decide(end)
    assert decision.reason
    assert (decision.next == "hold") == (end.kind == Outcome.STOPPED)


@given(ends)
def test_provider_and_server_faults_and_what_never_began_charge_nothing(end: End) -> None:
    decision = decide(end)
    free = {
        "rate_limited",
        "overloaded",
        "auth",
        "billing",
        "bad_model",
        "config",
        "not_started",
        "host_lost",
        "stopped",
    }
    if end.kind in free or end.detail == "server":
        assert decision.next not in ("retry", "crash")
        assert not decision.idle


@given(ends)
def test_a_retry_is_charged_for_no_change_alone_and_a_crash_never_is_one(end: End) -> None:
    decision = decide(end)
    if decision.next == "retry":
        assert not end.changed and end.kind in ("done", "no_change", "turn_limit", "budget")
    if end.kind in (
        "crashed",
        "hung",
        "output_limit",
        "memory_limit",
        "disk_limit",
        "lost",
        "workspace_lost",
    ):
        assert decision.next in ("crash", "gate", "again")


@given(ends)
def test_only_work_that_the_agent_committed_itself_survives_an_abnormal_end(end: End) -> None:
    if decide(end).survived:
        assert end.committed and end.kind not in ("done", "stopped", "lost")


@given(ends)
def test_only_sessions_that_ended_by_themselves_and_left_all_as_it_was_are_idle(end: End) -> None:
    assert decide(end).idle == (
        end.kind in ("done", "no_change") and end.detail != "server" and not end.moved
    )


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (End("auth", "r"), Decision("block", "r", opens="credential")),
        (End("billing", "r"), Decision("block", "r", opens="credential")),
        (End("bad_model", "r"), Decision("block", "r", opens="agent")),
        (End("config", "r", "program"), Decision("block", "r", opens="runtime")),
        (End("config", "r", "conversation_missing", resumed=True), Decision("again", "r")),
        (End("config", "r", "conversation_missing"), Decision("block", "r")),
        (End("config", "r"), Decision("block", "r")),
        (End("context_full", "r", resumed=True), Decision("again", "r")),
        (End("context_full", "r"), Decision("block", "r")),
        (End("rate_limited", "r"), Decision("wait", "r", opens="limit")),
        (End("overloaded", "r"), Decision("wait", "r")),
        (End("crashed", "r", committed=True, changed=True, moved=True), Decision("gate", "r", survived=True)),
        (End("crashed", "r", changed=True, moved=True), Decision("crash", "r")),
        (End("lost", "r", committed=True, changed=True, moved=True), Decision("crash", "r")),
        (End("lost", "r", "not_begun"), Decision("again", "r")),
        (End("budget", "r", "shared"), Decision("again", "r")),
        (End("budget", "r", changed=True, moved=True), Decision("gate", "r")),
        (End("wall_limit", "r"), Decision("crash", "r")),
        (End("done", "r", changed=True, moved=True), Decision("gate", "r")),
        (End("done", "r", changed=True), Decision("gate", "r", idle=True)),
        (End("nothing known", "r"), Decision("block", "r")),
    ],
)
def test_the_table(end: End, expected: Decision) -> None:
    assert decide(end) == expected
