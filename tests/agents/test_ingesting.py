"""A supervisor may be killed after any turn, in the middle of a line of any length: the next one reads the same events, and nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from agents.models import Session
from agents.services import ingesting
from pipeline import conf
from pipeline.following import Followed
from pipeline.models import Process
from pipeline.processes.records import CONTINUED, GAP, HEAD, STDERR, STDOUT, VERSION
from pipeline.supervisor import Supervisor
from tests import factories
from tests.agents.working import session
from tests.logs import events

pytestmark = pytest.mark.django_db(transaction=True)
PIECE = 20_000


def in_records(stream: int, line: bytes) -> list[tuple[int, int, bytes]]:
    parts = [line[at : at + PIECE] for at in range(0, len(line), PIECE)]
    return [*((stream, CONTINUED, part) for part in parts[:-1]), (stream, 0, parts[-1])]


def printed() -> list[tuple[int, int, bytes]]:
    """A message of 700 kB with other streams' lines between its pieces, one longer than is put together, and one that lost its middle."""
    said = json.dumps(
        {
            "type": "assistant",
            "message": {"id": "m", "content": [{"type": "text", "text": "a" * 700_000 + " the end"}]},
        }
    )
    long, aside = in_records(STDOUT, said.encode()), in_records(STDERR, b"w" * 100_000)
    mixed = [one for at, piece in enumerate(long) for one in (piece, *aside[at : at + 1])]
    torn = [
        (STDOUT, CONTINUED, b"begin " + b"x" * 60_000),
        (STDOUT, GAP | CONTINUED, b"after " + b"y" * 60_000),
        (STDOUT, 0, b" end"),
    ]
    return [*mixed, (STDOUT, 0, b"short"), *in_records(STDOUT, b"z" * 1_500_000), *torn, (STDOUT, 0, b"last")]


def taken(killed: bool) -> tuple[list[tuple[str, Any]], int]:
    """(the events, bytes of the largest state that was stored); `killed`: each turn is another supervisor's."""
    name = "killed" if killed else "whole"
    project = factories.project(name)
    row = session(factories.story(project), factories.coder(project))
    Session.objects.filter(pk=row.pk).update(runtime="claude-code")
    Process.objects.filter(pk=row.process_id).update(state="running")
    process = Process.objects.get(pk=row.process_id)
    folder = Path(conf.runs()) / process.key
    folder.mkdir(parents=True)
    records = [
        HEAD.pack(VERSION, stream, flags, 0, n, n, len(data)) + data
        for n, (stream, flags, data) in enumerate(printed())
    ]
    (folder / "log").write_bytes(b"".join(records))
    size, largest, supervisor = (folder / "log").stat().st_size, 0, Supervisor()
    supervisor.followed[process.pk] = followed = Followed(process, folder)
    while followed.process.offset < size:
        supervisor.follow()
        assert not followed.unread
        stored = Process.objects.get(pk=process.pk)
        largest = max(largest, len(json.dumps(stored.parser_state)))
        if killed:
            ingesting._kept.clear()
            supervisor = Supervisor()
            supervisor.followed[process.pk] = followed = Followed(stored, folder)
    return [(event.kind, event.body) for event in events(process)], largest


@pytest.mark.parametrize("turn", [1, 3, 500])
def test_a_kill_after_any_turn_changes_no_event(
    turn: int, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.HUSKIES_HOME = tmp_path
    monkeypatch.setattr("pipeline.following.RECORDS_PER_TURN", turn)
    whole, largest = taken(killed=False)
    assert [body["text"][:5] for kind, body in whole if "text" in body and kind in ("text", "output")].count(
        "aaaaa"
    ) >= 1
    assert [body.get("cut", 0) > 1_000_000 for _, body in whole].count(True) == 1
    assert taken(killed=True)[0] == whole
    assert largest < 200_000, "a long line is read again from the log, not stored with every turn"
