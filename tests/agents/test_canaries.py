"""A key that an agent prints, in any form and in any pieces, gets no further than the runner's own log."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.apps import apps
from django.db import connection
from pytest_django import Settings

from agents.models import Credential, Session
from agents.runtimes import RUNTIMES
from agents.sealing import seal
from pipeline import conf
from pipeline.following import Followed
from pipeline.live import topics
from pipeline.models import Process
from pipeline.processes.records import CONTINUED, HEAD, STDERR, STDOUT, VERSION
from pipeline.supervisor import Supervisor
from tests import factories
from tests.agents.working import session

pytestmark = pytest.mark.django_db(transaction=True)
CANARY = "canary/" + "Zq7+Xw9_" * 4 + "end"
PIECES = [CANARY[:9], CANARY[-9:]]
FORMS = {
    "plain": CANARY,
    "json": json.dumps(CANARY)[1:-1].replace("/", "\\/"),
    "json in json": json.dumps(json.dumps(CANARY)),
    "url": quote(CANARY, safe=""),
    "hex": CANARY.encode().hex(),
    **{f"base64 after {n}": base64.b64encode(b"u" * n + CANARY.encode() + b"!").decode() for n in range(3)},
    "escaped by letters": "".join(f"\\u{ord(one):04x}" for one in CANARY),
}


def told() -> Iterator[tuple[int, int, bytes]]:
    """Records as a runner writes them: lines of any kind, whole and in two pieces at every place, on both streams."""
    for form in FORMS.values():
        yield STDOUT, 0, f"it is {form} indeed".encode()
        yield STDERR, 0, f"warning: {form}".encode()
        text = form.replace("\\", "\\\\")
        raw = f'{{"type":"assistant","message":{{"id":"m","content":[{{"type":"text","text":"{text}"}}]}}}}'
        yield STDOUT, 0, raw.encode()
    yield STDOUT, 0, b'{"type": "strange", "text": "%s"}' % FORMS["escaped by letters"].encode()
    # Only when it is read this is the key; in a long text, where that is cut into events.
    for filler in (0, 3000, 16_375):
        text = "x" * filler + FORMS["escaped by letters"]
        raw = f'{{"type":"assistant","message":{{"id":"l{filler}","content":[{{"type":"text","text":"{text}"}}]}}}}'
        yield STDOUT, 0, raw.encode()
    for cut in range(1, len(CANARY)):
        yield STDOUT, CONTINUED, b"<" + CANARY[:cut].encode()
        yield STDOUT, 0, CANARY[cut:].encode() + b">"
    start = {
        "type": "message_start",
        "message": {"id": "m2", "model": "claude-opus-5-5", "usage": {"input_tokens": 1}},
    }
    yield STDOUT, 0, event(start)
    yield STDOUT, 0, event({"type": "content_block_start", "index": 0})
    for letter in f"and {CANARY} in letters":
        yield (
            STDOUT,
            0,
            event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": letter}}),
        )
    for letter in CANARY:
        yield (
            STDOUT,
            0,
            json.dumps({"type": "message", "role": "assistant", "delta": True, "content": letter}).encode(),
        )


def event(value: dict[str, Any]) -> bytes:
    return json.dumps({"type": "stream_event", "event": value}).encode()


def everything_stored() -> str:
    """Every row of every table, as text."""
    found = []
    with connection.cursor() as cursor:
        for model in apps.get_models(include_auto_created=True):
            cursor.execute(f'SELECT * FROM "{model._meta.db_table}"')
            found += [repr(row) for row in cursor.fetchall()]
    return "\n".join(found)


def assert_clean(text: str, where: str) -> None:
    for name, form in FORMS.items():
        assert form not in text, (where, name)
    for piece in PIECES:
        assert piece not in text, (where, piece)


@pytest.mark.parametrize("runtime", list(RUNTIMES))
@pytest.mark.parametrize("turn", [1, 7, 500], ids="{} records a turn".format)
def test_no_canary_in_the_database_the_data_folder_the_log_or_a_frame(
    runtime: str,
    turn: int,
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`turn`: where one ends, what is stored is the half of a line; the database is looked through after each few of them."""
    settings.HUSKIES_HOME = tmp_path
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("pipeline.following.RECORDS_PER_TURN", turn)
    project = factories.project()
    credential = Credential.objects.create(name="key", sealed=seal(CANARY))
    row = session(factories.story(project), factories.coder(project), credential=credential)
    Session.objects.filter(pk=row.pk).update(runtime=runtime)
    Process.objects.filter(pk=row.process_id).update(state="running")
    process = Process.objects.get(pk=row.process_id)
    folder = Path(conf.runs()) / process.key
    folder.mkdir(parents=True)
    log = folder / "log"
    log.write_bytes(
        b"".join(
            HEAD.pack(VERSION, stream, flags, 0, n, n, len(data)) + data
            for n, (stream, flags, data) in enumerate(told())
        )
    )
    supervisor, size, turns = Supervisor(), log.stat().st_size, 0
    supervisor.followed[process.pk] = followed = Followed(process, folder)
    while followed.process.offset < size:
        supervisor.follow()
        assert not followed.unread, followed.unread
        turns += 1
        if turns % 20 == 1:
            assert_clean(everything_stored(), "database")
    assert_clean(everything_stored(), "database")
    assert "[redacted]" in everything_stored()
    process.refresh_from_db()
    for cursor in range(0, process.last_seq, 400):
        assert_clean(json.dumps(topics.frame_after(f"process:{process.key}", cursor)), "frame")
    assert_clean(caplog.text, "server's log")
    files = [path for path in conf.home().rglob("*") if path.is_file() and path != log]
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path
