"""The supervisor: one plain loop per host that follows the logs of this host's processes into the database.

It resumes each log at the stored offset, and the offset moves in the same transaction as the rows, by compare-and-set: a second follower
changes nothing. It notices exits (pidfd), lost runners (the lock is free), launches that nobody finished, and calls the sweeps, all on the
monotonic clock. A handler that raises ends its own process as "handler failed", never the loop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, close_old_connections, transaction
from django.utils import timezone

from pipeline import conf, events, following, kinds, logevents, sweeps
from pipeline.following import Batch, Followed
from pipeline.logevents import NewEvent
from pipeline.models import Process
from pipeline.models.process import ProcessState
from pipeline.prepared import Select
from pipeline.processes import identity as identities
from pipeline.processes import spawn, sweep
from pipeline.processes.crashpoint import crashpoint
from pipeline.services import hosts, processes
from pipeline.unsynced import unsynced

logger = logging.getLogger("huskies.supervisor")

SCAN_SECONDS = 1.0
LAUNCH_SECONDS = 2.0
HEARTBEAT_SECONDS = 3.0


RUNNING: Select[tuple[int]] = Select(
    lambda host: Process.objects.unhandled().filter(host=host, state=ProcessState.RUNNING).values_list("pk"),
    str,
)
OVER: Select[tuple[int]] = Select(
    lambda host: (
        Process.objects.unhandled()
        .filter(host=host, state__in=[ProcessState.EXITED, ProcessState.LOST])
        .values_list("pk")
    ),
    str,
)


@dataclass
class Supervisor:
    tick_seconds: float = field(default_factory=lambda: settings.HUSKIES_TICK_MS / 1000)
    followed: dict[int, Followed] = field(default_factory=dict)
    stopping: bool = False
    behind: bool = False
    _due: dict[str, float] = field(default_factory=dict)
    _prepared: dict[int, float] = field(default_factory=dict)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _bell: socket.socket | None = None

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stopping` is set (by a signal handler). Opens the bell, follows, sweeps."""
        self.open_bell()
        try:
            while not self.stopping:
                self.step()
                self.wait()
        finally:
            self.close()

    def wait(self) -> None:
        """Sleep until an exit, the bell, or the tick; the tick is long when nothing is followed, and not waited for when a log has more."""
        seconds = (
            self.tick_seconds if self.followed else min(0.5, max(0.0, self._next_due() - time.monotonic()))
        )
        if self.behind:
            seconds = 0.0
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._bell:
                with contextlib.suppress(BlockingIOError):
                    while self._bell and self._bell.recv(16):
                        pass
                self._due["scan"] = 0.0
            else:
                self.followed[key.data].gone = True
                self._selector.unregister(key.fileobj)

    def step(self) -> None:
        """One turn: everything that is due now. The database may be away for a while; then this turn is skipped and said."""
        now = time.monotonic()
        try:
            close_old_connections()
            if self.due("scan", SCAN_SECONDS, now):
                self.scan()
            self.follow()
            self.look_for_ends()
            if self.due("launches", LAUNCH_SECONDS, now):
                self.resolve_launches()
            if self.due("heartbeat", HEARTBEAT_SECONDS, now):
                self.heartbeat()
            for each in sweeps.all_sweeps():
                if self.due(f"sweep-{each.name}", each.seconds, now):
                    self.guarded(each.run, f"sweep {each.name}")
        except DatabaseError:
            logger.exception(
                "The supervisor could not use the database; it tries again in a second.",
                extra={"action": "database_away"},
            )
            for followed in list(
                self.followed.values()
            ):  # parsed and not stored, it would be parsed on top of itself
                self.drop(followed)
            time.sleep(1)

    def due(self, name: str, seconds: float, now: float) -> bool:
        if now < self._due.get(name, 0.0):
            return False
        self._due[name] = now + seconds
        return True

    def _next_due(self) -> float:
        return min(self._due.values(), default=0.0)

    def guarded(self, call: Callable[[], object], what: str) -> bool:
        """A sweep or handler that raises is logged and never stops the loop."""
        try:
            call()
        except DatabaseError:
            raise
        except Exception:
            logger.exception("The %s failed.", what, extra={"action": "handler_failed"})
            return False
        return True

    # -- who is followed -----------------------------------------------------------------------------------------

    def scan(self) -> None:
        """Take up every running process of this host that is not followed yet; finish what ended while nobody looked."""
        for (pk,) in RUNNING(conf.host()):
            if pk not in self.followed:
                for process in processes.WHOLE(pk):
                    self.take_up(process)
        for (pk,) in OVER(conf.host()):
            self.end(pk)

    def take_up(self, process: Process) -> None:
        followed = Followed(process, conf.runs() / process.key)
        who = identities.Identity(process.pid or 0, process.start_time or 0, process.boot_id)
        followed.pidfd = identities.open_pidfd(who)
        if followed.pidfd is None:  # the lock decides, whatever number the row holds
            followed.gone = not spawn.runner_alive(conf.runs(), process.key)
        else:
            self._selector.register(followed.pidfd, selectors.EVENT_READ, process.pk)
        self.followed[process.pk] = followed

    def drop(self, followed: Followed) -> None:
        self.followed.pop(followed.process.pk, None)
        if followed.pidfd is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(followed.pidfd)
            os.close(followed.pidfd)
            followed.pidfd = None  # closed twice, it would be another's

    # -- logs ----------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Read what is new in every log, parse it, and store all of it in one transaction; on an error, each in its own.

        Each log gets the same share of a turn. Parsing stands outside of the transaction: on SQLite it keeps all other writers waiting.
        """
        found = [batch for followed in list(self.followed.values()) if (batch := following.read(followed))]
        self.behind = any(batch.more for batch in found)
        batches = [batch for batch in found if self.parsed(batch)]
        if not batches:
            return
        try:
            with unsynced(), transaction.atomic():
                for batch in batches:
                    self.store(batch)
                crashpoint("supervisor-in-batch")
        except Exception as error:
            if isinstance(error, Overtaken):
                logger.warning("%s", error, extra={"action": "overtaken"})
            else:
                logger.exception(
                    "A batch of several logs failed; each is stored by itself.",
                    extra={"action": "batch_failed"},
                )
            for batch in batches:
                process = batch.followed.process
                with contextlib.suppress(
                    Process.DoesNotExist
                ):  # its story was deleted: the next line drops it
                    process.refresh_from_db()
                    if process.offset == batch.begin:
                        self.store_alone(batch)
                        continue
                self.drop(
                    batch.followed
                )  # another follower stored these: the next scan takes it up where it stands

    def parsed(self, batch: Batch) -> bool:
        """Whether the batch's records could be understood; a log that cannot be ends its process."""
        process = batch.followed.process
        try:
            batch.new = kinds.handler_of(process).records(process, batch.records)
        except DatabaseError:
            raise
        except Exception:
            logger.exception(
                "The log of process %s cannot be understood.", process.key, extra={"action": "handler_failed"}
            )
            batch.followed.unread = "its log could not be understood (handler failed)"
            return False
        return True

    def store_alone(self, batch: Batch) -> None:
        if not self.parsed(batch):
            return
        try:
            with transaction.atomic():
                self.store(batch)
        except DatabaseError:
            raise
        except Overtaken as error:
            logger.warning("%s", error, extra={"action": "overtaken"})
        except Exception:
            logger.exception(
                "The log of process %s cannot be stored.",
                batch.followed.process.key,
                extra={"action": "handler_failed"},
            )
            batch.followed.unread = "its log could not be stored (handler failed)"
            batch.followed.process.refresh_from_db()

    def store(self, batch: Batch) -> None:
        """Rows, parser state and offset in one transaction; by compare-and-set on the offset, so that two followers store once."""
        process, new = batch.followed.process, batch.new
        handler, seq = kinds.handler_of(process), process.last_seq
        started = not process.main_started and any(
            e.kind == "note" and e.body.get("note") == "step-start" and e.body.get("main") for e in new
        )
        changed = Process.objects.filter(
            pk=process.pk, offset=batch.begin, state=ProcessState.RUNNING
        ).update(
            offset=batch.offset,
            parser_state=process.parser_state,
            last_seq=seq + len(new),
            main_started=process.main_started or started,
        )
        if changed != 1:
            fresh = Process.objects.filter(pk=process.pk).first()
            self.drop(batch.followed)
            raise Overtaken(
                f"Another supervisor follows process {process.key}; now at {fresh.offset if fresh else 'nothing'}."
            )
        logevents.append(process.pk, seq + 1, new)
        process.offset, process.last_seq = batch.offset, seq + len(new)
        if started:
            process.main_started = True
            handler.started(process)
        handler.stored(process, new, seq + 1)
        if new:
            events.nudge(f"process:{process.key}")

    # -- ends ----------------------------------------------------------------------------------------------------

    def look_for_ends(self) -> None:
        now = time.monotonic()
        for followed in list(self.followed.values()):
            if not followed.gone and now >= followed.checked:
                followed.checked = now + SCAN_SECONDS
                followed.gone = not spawn.runner_alive(conf.runs(), followed.process.key)
                if followed.unread and not followed.gone:
                    processes.stop(followed.process, grace=1.0, reason=followed.unread)
            if followed.gone:
                self.ended(followed)

    def ended(self, followed: Followed) -> None:
        """The runner is dead: its exit record, once its whole log is stored; without one it was lost."""
        process = followed.process
        try:
            said = spawn.read_exit(conf.runs(), process.key)
        except ValueError:
            said = None
        if said is not None and process.offset < int(said.get("log_size", 0)) and following.read(followed):
            return  # the next turn stores the rest
        if said is None and following.read(followed):
            return
        leftovers: list[int] = []
        if said is None or not said.get("verified", False):
            leftovers = sweep.sweep_marked(process.key)
            if leftovers:
                logger.error(
                    "Process %s ended, but %s could not be killed; its slot stays held.",
                    process.key,
                    leftovers,
                    extra={"action": "stop_not_verified"},
                )
                return  # tried again each turn: a terminal state is never a lie
        state = ProcessState.EXITED if said is not None else ProcessState.LOST
        said = said or {
            "version": 1,
            "key": process.key,
            "outcome": "lost",
            "code": None,
            "signal": None,
            "log_size": process.offset,
        }
        if (answer := spawn.read_answer(conf.runs(), process.key)) is not None:
            said["answer"] = answer
        with transaction.atomic():
            if Process.objects.filter(pk=process.pk, state=ProcessState.RUNNING).update(
                state=state, exit=said, ended_at=timezone.now()
            ):
                if state == ProcessState.LOST:
                    self.cut_here(process)
        self.drop(followed)
        crashpoint("exit-recorded")
        self.end(process.pk)

    def cut_here(self, process: Process) -> None:
        """A killed runner leaves a mark where its log was cut, unless another supervisor was here."""
        seq = process.last_seq + 1
        mine = Process.objects.filter(pk=process.pk, last_seq=process.last_seq)
        if mine.update(last_seq=seq):
            text = "Cut here: the process that kept this log was killed. What it had not written yet is lost."
            logevents.append(process.pk, seq, [NewEvent("cut", {"text": text}, time.time_ns() // 1000)])
            events.nudge(f"process:{process.key}")

    def end(self, process_id: int) -> None:
        if not self.guarded(lambda: processes.handle_end(process_id), f"handler of process {process_id}"):
            self._due.setdefault("scan", 0.0)

    # -- what nobody finished --------------------------------------------------------------------------------------

    def resolve_launches(self) -> None:
        """Prepared processes that are older than two seconds: launch them, or resolve what a dead launcher left (windows 4-8).

        Old by their date or seen that long by this loop: a clock that was set back must not hide them for a day.
        """
        now, old = time.monotonic(), timezone.now() - timedelta(seconds=LAUNCH_SECONDS)
        prepared = Process.objects.unhandled().filter(host=conf.host(), state=ProcessState.PREPARED)
        rows = list(prepared.select_related("project", "story"))
        self._prepared = {row.pk: self._prepared.get(row.pk, now) for row in rows}
        for process in rows:
            if process.created_at >= old and now - self._prepared[process.pk] < LAUNCH_SECONDS:
                continue
            self.guarded(lambda p=process: processes.resolve(p), f"launch of process {process.key}")  # type: ignore[misc]

    def heartbeat(self) -> None:
        hosts.beat()

    # -- the bell --------------------------------------------------------------------------------------------------

    def open_bell(self) -> None:
        folder = os.open(conf.home(), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                (conf.home() / "bell").unlink()
            self._bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._bell.bind(f"/proc/self/fd/{folder}/bell")
        finally:
            os.close(folder)
        self._selector.register(self._bell, selectors.EVENT_READ)

    def close(self) -> None:
        for followed in list(self.followed.values()):
            self.drop(followed)
        if self._bell is not None:
            self._selector.unregister(self._bell)
            self._bell.close()
        self._selector.close()


class Overtaken(Exception):
    """Another supervisor follows this process."""
