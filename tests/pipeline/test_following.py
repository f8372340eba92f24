"""How the supervisor takes logs in: all of each, once, in turns that leave room for the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.db import OperationalError

from pipeline import conf, following, kinds
from pipeline.logevents import NewEvent
from pipeline.models import Process
from pipeline.processes.logfile import Record
from pipeline.processes.records import HEAD, STDOUT, VERSION
from pipeline.services import processes
from pipeline.supervisor import Supervisor
from tests.logs import events

pytestmark = pytest.mark.django_db(transaction=True)


class Lines(kinds.Handler):
    """Counts what it parsed in its state, and stumbles over two words."""

    def spec(self, process: Process) -> dict[str, Any]:
        raise NotImplementedError

    def ended(self, process: Process) -> None:
        processes.finish(process)

    def records(self, process: Process, records: Sequence[Record]) -> list[NewEvent]:
        if any(record.data == b"nonsense" for record in records):
            raise ValueError("nonsense")
        process.parser_state["parsed"] = process.parser_state.get("parsed", 0) + len(records)
        return super().records(process, records)

    def stored(self, process: Process, events: Sequence[NewEvent], first_seq: int) -> None:
        if any(event.body["text"] == "indigestible" for event in events):
            raise ValueError("indigestible")


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    kinds.register("lines", Lines())
    conf.home().mkdir(parents=True, exist_ok=True)
    supervisor = Supervisor(tick_seconds=60)
    supervisor.open_bell()
    yield supervisor
    supervisor.close()
    kinds._handlers.pop("lines")


def running(*lines: bytes) -> Process:
    """A process that is said to run, and its log."""
    process = Process.objects.create(
        key=conf.new_key(), kind="lines", host=conf.host(), state="running", pid=0, start_time=0
    )
    folder = conf.runs() / process.key
    folder.mkdir(parents=True)
    with (folder / "log").open("wb") as log:
        for n, line in enumerate(lines):
            log.write(HEAD.pack(VERSION, STDOUT, 0, 0, n, n * 10**9, len(line)) + line)
    return process


def taken_up(supervisor: Supervisor, *rows: Process) -> None:
    for process in rows:
        supervisor.take_up(process)


def texts(process: Process) -> list[str]:
    rows = events(process)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    return [row.body["text"] for row in rows]


def test_a_log_longer_than_a_turn_is_stored_whole_without_waiting_between(supervisor: Supervisor) -> None:
    lines = [f"line {n} \N{SNOWMAN} '%s' \\".encode() for n in range(2 * following.RECORDS_PER_TURN + 7)]
    process = running(*lines)
    taken_up(supervisor, process)
    for left in (True, True, False):
        supervisor.follow()
        assert supervisor.behind is left
        supervisor.wait() if left else None  # a tick is a minute here
    assert texts(process) == [line.decode() for line in lines]
    process.refresh_from_db()
    assert process.parser_state["parsed"] == process.last_seq == len(lines)
    assert events(process)[2].at.timestamp() == 2


def test_a_loud_log_leaves_a_quiet_one_its_place_in_each_turn(supervisor: Supervisor) -> None:
    loud, quiet = running(*[b"x"] * 5000), running(b"hello")
    taken_up(supervisor, loud, quiet)
    supervisor.follow()
    assert (len(texts(loud)), texts(quiet)) == (following.RECORDS_PER_TURN, ["hello"])


def test_a_turn_reads_a_bounded_part_of_a_log_of_long_records(supervisor: Supervisor) -> None:
    process = running(*[b"x" * 60_000] * 40)
    taken_up(supervisor, process)
    supervisor.follow()
    process.refresh_from_db()
    assert 0 < process.offset <= following.BYTES_PER_TURN and supervisor.behind


@pytest.mark.parametrize("word", [b"nonsense", b"indigestible"])
def test_a_log_that_cannot_be_taken_in_ends_its_own_process_and_no_other(
    supervisor: Supervisor, word: bytes
) -> None:
    broken, whole = running(word), running(b"hello")
    taken_up(supervisor, broken, whole)
    supervisor.followed[whole.pk].gone = False
    supervisor.followed[whole.pk].checked = float("inf")
    for _ in range(2):
        supervisor.follow()
        supervisor.look_for_ends()
    assert ([text for text in texts(broken) if not text.startswith("Cut here")], texts(whole)) == (
        [],
        ["hello"],
    )
    assert broken.pk not in supervisor.followed and whole.pk in supervisor.followed
    broken.refresh_from_db()
    assert (broken.state, broken.last_seq, broken.offset) == ("handled", 1, 0)


def test_a_process_whose_row_was_deleted_is_followed_no_more(supervisor: Supervisor) -> None:
    gone, other = running(b"one"), running(b"hello")
    taken_up(supervisor, gone, other)
    Process.objects.filter(pk=gone.pk).delete()
    supervisor.follow()
    assert gone.pk not in supervisor.followed and texts(other) == ["hello"]


def test_what_a_database_that_was_away_did_not_take_is_parsed_anew(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = running(b"one", b"two")

    def away(*_: object) -> None:
        raise OperationalError("away")

    with monkeypatch.context() as broken:
        broken.setattr(Supervisor, "store", away)
        broken.setattr(Process, "refresh_from_db", away)
        broken.setattr("pipeline.supervisor.time.sleep", lambda _: None)
        supervisor.step()
    assert supervisor.followed == {} and texts(process) == []
    supervisor._due.clear()
    supervisor.step()
    supervisor.step()
    process.refresh_from_db()
    assert texts(process)[:2] == ["one", "two"] and process.parser_state["parsed"] == 2


def test_what_another_follower_stored_is_not_stored_again(supervisor: Supervisor) -> None:
    process, other = running(b"one", b"two"), running(b"hello")
    taken_up(supervisor, Process.objects.get(pk=process.pk), other)
    second = Supervisor(tick_seconds=60)
    taken_up(second, process)
    second.follow()
    supervisor.follow()
    second.close()
    assert (texts(process), texts(other)) == (["one", "two"], ["hello"])
    assert process.pk not in supervisor.followed
