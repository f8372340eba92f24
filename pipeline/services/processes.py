"""The verbs of a process: prepare, launch, stop, finish.

A process is a row before it is a child: the row is committed with the intent, the queue (or the sweep) launches it, the supervisor follows
it, its kind's handler says what its end means. Launching twice is harmless: the runner's lock lets one live (rules.md, Launch).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from pipeline import conf, kinds, taskqueue
from pipeline.exceptions import Refused
from pipeline.models import Process, Project, Story
from pipeline.models.process import ProcessState
from pipeline.prepared import Select, Update, insert_all
from pipeline.processes import control, spawn
from pipeline.processes.crashpoint import crashpoint
from pipeline.processes.identity import Identity
from pipeline.processes.starting import SpawnFailed, fork_server
from pipeline.unsynced import unsynced

logger = logging.getLogger("huskies.processes")

WHOLE: Select[Process] = Select(
    lambda pk: Process.objects.select_related("project", "story").filter(pk=pk), int
)
HELD: Select[Process] = Select(
    lambda pk: (
        Process.objects.select_for_update(of=("self",), no_key=True)
        .select_related("project", "story")
        .filter(pk=pk)
    ),
    int,
)
FINISH = Update(lambda pk: (Process.objects.filter(pk=pk), {"state": ProcessState.HANDLED}), int)
PREPARED: Select[tuple[int]] = Select(
    lambda pk: Process.objects.filter(pk=pk, state=ProcessState.PREPARED).values_list("pk"), int
)


def prepare(
    kind: str,
    *,
    project: Project | None,
    story: Story | None = None,
    fence: int = 0,
    request: dict[str, Any] | None = None,
) -> Process:
    """The row of a process that is to run on this host, and the queued task that launches it; inside the caller's transaction."""
    fresh = Process(kind=kind, project=project, story=story, fence=fence, request=request or {})
    return prepare_all([fresh])[0]


def prepare_all(fresh: Sequence[Process]) -> Sequence[Process]:
    """The same for several rows, which get their keys here."""
    for process in fresh:
        process.key, process.host = conf.new_key(), conf.host()
    insert_all(fresh)
    for process in fresh:
        taskqueue.enqueue("pipeline.tasks.launch", process.pk)
    return fresh


def launch(process_id: int) -> bool:
    """Start the child of a prepared process. Idempotent; returns whether this call did. Never inside a transaction: it forks."""
    process = WHOLE.first(process_id)
    if process is None:
        return False  # the queue was late, and its story was deleted
    if process.state != ProcessState.PREPARED or process.host != conf.host():
        return False
    crashpoint("launch-before-spawn")
    with spawn.launching(conf.runs(), process.key) as ours:
        if not ours:  # another worker, or the sweep, is at it
            return False
        return _still_prepared(process) and _launch(process)


def resolve(process: Process) -> None:
    """What the sweep does for a process that should have been launched by now (crash windows 4-8), unless someone is just launching it."""
    with spawn.launching(conf.runs(), process.key) as ours:
        if not ours or not _still_prepared(process):
            return
        if spawn.touched(conf.runs(), process.key):
            reclaim(process)
        else:
            _launch(process)


def _still_prepared(process: Process) -> bool:
    return bool(PREPARED(process.pk))


def _launch(process: Process) -> bool:
    handler = kinds.handler_of(process)
    try:
        with unsynced():
            if (said := handler.at_once(process)) is not None:
                return _done(process, said)
            with fork_server.begin() as runner:  # it starts while the order is made
                spec = handler.spec(process)
                identity = runner.order(conf.runs(), process.key, spec)
            crashpoint("launch-after-spawn")
            adopt(process, identity)
    except (Refused, SpawnFailed) as error:
        # Whoever takes the lock first decides whether a runner lives after all.
        return not reclaim(process, str(error))
    ring()
    return True


def _done(process: Process, said: dict[str, Any]) -> bool:
    """What needed no child is over, as a chore that exited with this result."""
    changed = Process.objects.filter(pk=process.pk, state=ProcessState.PREPARED).update(
        state=ProcessState.EXITED,
        exit=_exit(process, "exited", code=0) | {"answer": {"result": said}},
        ended_at=timezone.now(),
    )
    if changed:
        handle_end(process.pk)
    return bool(changed)


def _exit(process: Process, outcome: str, *, reason: str = "", code: int | None = None) -> dict[str, Any]:
    """As a runner writes it, of a process that had none."""
    return {
        "version": 1,
        "key": process.key,
        "outcome": outcome,
        "reason": reason,
        "code": code,
        "signal": None,
        "log_size": 0,
    }


def adopt(process: Process, identity: Identity) -> bool:
    """Store who the runner is, by compare-and-set; False when another was first."""
    return bool(
        Process.objects.filter(pk=process.pk, state=ProcessState.PREPARED).update(
            state=ProcessState.RUNNING,
            pid=identity.pid,
            start_time=identity.start_time,
            boot_id=identity.boot_id,
            started_at=timezone.now(),
        )
    )


def reclaim(process: Process, why: str = "it was not launched in time") -> bool:
    """Resolve a prepared process by the files of its run folder (crash windows 5-8): adopt the runner, or end it as not launched.

    Returns whether it was ended. A runner that holds the lock without an identity yet is left alone.
    """
    verdict = spawn.give_up(conf.runs(), process.key)
    identity = spawn.read_identity(conf.runs(), process.key)
    if verdict in ("alive", "finished"):
        if identity is not None and adopt(process, identity):
            ring()
        return False
    changed = Process.objects.filter(pk=process.pk, state=ProcessState.PREPARED).update(
        state=ProcessState.LOST, exit=_exit(process, "not_launched", reason=why), ended_at=timezone.now()
    )
    if changed:
        logger.warning(
            "%s process %s was not launched: %s",
            process.kind,
            process.key,
            why,
            extra={"action": "process_not_launched"},
        )
        handle_end(process.pk)
    return bool(changed)


def handle_end(process_id: int) -> None:
    """Let the kind's handler draw the consequences of an end, once, in one transaction."""
    with transaction.atomic():
        [process] = HELD(process_id)
        if process.state not in (ProcessState.EXITED, ProcessState.LOST):
            return
        crashpoint("end-before-handler")
        kinds.handler_of(process).ended(process)
        crashpoint("end-inside-transaction")


def finish(process: Process) -> None:
    """The last act of a handler: nothing more follows from this process."""
    FINISH(process.pk)
    process.state = ProcessState.HANDLED


def stop(process: Process, *, grace: float = 5.0, reason: str = "") -> bool:
    """Ask the runner to stop its child. False when it cannot be asked; the sweep asks again while a stop is wanted."""
    try:
        answer = control.ask(conf.runs(), process.key, {"do": "stop", "grace": grace, "reason": reason})
    except control.ControlUnavailable as error:
        logger.info("%s", error, extra={"action": "stop_not_heard", "key": process.key})
        return False
    return bool(answer.get("ok"))


def tell(
    process: Process, line: str, *, mark: str = "", interrupt: bool = False, asked: bool = False
) -> bool:
    """Give a running program one line on its stdin; False when it takes none, or is over.

    One with the same `mark` is passed on once. `interrupt`: its turn is ended for it; `asked`: it waits for this very line.
    """
    request: dict[str, object] = {"do": "message", "text": line, "interrupt": interrupt, "asked": asked}
    try:
        answer = control.ask(conf.runs(), process.key, {**request, **({"id": mark} if mark else {})})
    except control.ControlUnavailable:
        return False
    return bool(answer.get("ok"))


def ring() -> None:
    """Tell this host's supervisor to look now; if nobody hears it, the next tick does."""
    try:
        # A socket address holds 107 bytes; the way through a descriptor is always short enough.
        folder = os.open(conf.home(), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bell:
            bell.sendto(b"!", f"/proc/self/fd/{folder}/bell")
    except OSError:
        return
    finally:
        os.close(folder)
