"""From the records of a session's log to events: each line masked and parsed, and what comes of it masked once more, just as it will be stored.

The second look finds what the first cannot: a secret that a program says in several pieces, or escapes in a way of its own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agents import prices
from agents.models import Session
from agents.redaction import Redactor
from agents.runtimes import get_runtime
from agents.runtimes.base import Parser
from agents.sealing import seal, unseal
from agents.services import logins, reaching, telling
from agents.services.progress import Watch
from pipeline import conf, kinds
from pipeline.inserting import as_json
from pipeline.logevents import Encoded, NewEvent, encoded
from pipeline.models import Process
from pipeline.processes.logfile import NOTE, LogDamaged, Record, read_records

MOST_KEPT = 256
SEALED = "sealed"
"""The parser's own state is stored encrypted: it holds lines and words that are not whole yet, and so not masked."""

SINCE, ASIDE = "since", "aside"
"""Where the first unfinished line begins in the log; and whether such lines are so long that they are read again there instead."""
MOST_STORED = 64 * 1024
"""Bytes of unfinished lines that are stored with each turn."""
CHUNK = 256 * 1024


@dataclass(slots=True)
class Kept:
    """What was made for one process, and the state that it left in the row: for any other state it is made anew.

    `since`: where in the log the first line begins that is not whole yet, None when all are.
    """

    state: dict[str, Any]
    parser: Parser
    redactor: Redactor
    since: int | None = None


_kept: dict[str, Kept] = {}


def parser_of(process: Process) -> Parser:
    """A parser that goes on from the row's state."""
    return _made(process).parser


def _made(process: Process) -> Kept:
    session = Session.objects.select_related("credential").get(process=process)
    secrets = logins.secrets_of(session.credential)
    redactor = Redactor([*secrets, reaching.token_of(session)] if secrets else [])
    sealed = process.parser_state.get(SEALED)
    state = json.loads(unseal(sealed)) if sealed else None
    parser, since = get_runtime(session.runtime).parser(state, redactor.mask), process.parser_state.get(SINCE)
    if since is not None and process.parser_state.get(ASIDE):
        parser.take_up(_records(process, since, process.offset))
    return Kept(process.parser_state, parser, redactor, since)


def _records(process: Process, begin: int, end: int) -> Iterator[Record]:
    """What a log holds between two ends of records; nothing of one that is gone or damaged."""
    path = conf.runs() / process.key / "log"
    with contextlib.suppress(OSError, LogDamaged):
        while begin < end:
            found, begin = read_records(path, begin, min(CHUNK, end - begin))
            if not found:
                return
            yield from (record for record in found if record.end <= end)


def forget(process: Process) -> None:
    _kept.pop(process.key, None)


def events_of(process: Process, records: Sequence[Record]) -> list[NewEvent]:
    """The events of whole records; leaves the parser's state and the watch in `process.parser_state`."""
    kept = _kept.pop(process.key, None)
    # A row that was read again, as after a transaction that failed, has another state than the one that was left there.
    if kept is None or kept.state is not process.parser_state:
        kept = _made(process)
    watch = Watch.of(process.parser_state)
    with prices.held():
        found = _parsed(kept, records, process.offset)
    new = masked(kept.redactor, telling.shown(process, found))
    if records:
        copy = str(conf.copy_path(process.key))
        watch.take(new, copy=copy, heard=max(record.monotonic_ns for record in records))
    aside = kept.parser.waiting() > MOST_STORED
    state = kept.parser.state_without_lines() if aside else kept.parser.state()
    kept.state = process.parser_state = {
        SEALED: seal(as_json(state).decode()),
        SINCE: kept.since,
        ASIDE: aside,
        "watch": watch.to_json(),
    }
    while len(_kept) >= MOST_KEPT:
        _kept.pop(next(iter(_kept)), None)
    _kept[process.key] = kept
    return new


def _parsed(kept: Kept, records: Sequence[Record], begin: int) -> list[NewEvent]:
    """`begin`: where in the log the first record does."""
    new: list[NewEvent] = []
    feed, waiting = kept.parser.feed, kept.parser.waiting
    made = tuple.__new__  # NewEvent's own takes twice as long
    # One look over all of them: only where it suspects something each line is looked at.
    safe = not kept.redactor.suspects(b"\n".join([record.data for record in records]))
    for record in records:
        found = feed(record, safe)
        if not waiting():
            kept.since = None
        elif kept.since is None:
            kept.since = begin
        begin = record.end
        if found:
            at = kinds.when(record)
            new += [made(NewEvent, (kind, body, at)) for kind, body in found]
        if record.stream == NOTE and not any(kind == "note" for kind, _ in found):
            note = kinds.as_event(record)
            new += [note] if note else []
    return new


def masked(redactor: Redactor, new: list[NewEvent]) -> Encoded:
    """The events with their rows' JSON, and nothing secret in either."""
    texts = encoded(new)
    if any(map(redactor.suspects, texts)):
        new = [
            one._replace(body=without_secrets(redactor, one.body))
            if redactor.suspects(as_json(one.body))
            else one
            for one in new
        ]
        texts = encoded(new)
    return Encoded(new, texts)


def without_secrets(redactor: Redactor, value: Any) -> Any:
    """A copy of any JSON value in which every text is masked."""
    if isinstance(value, str):
        return redactor.mask_text(value)
    if isinstance(value, dict):
        return {redactor.mask_text(str(key)): without_secrets(redactor, one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_secrets(redactor, one) for one in value]
    return value
