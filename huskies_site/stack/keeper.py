"""The loop of `up`: starts the parts, starts again what dies, notices a hung queue, and ends all of it when asked."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huskies_site.stack import forks, members, startup
from huskies_site.stack.datafile import DataFile
from pipeline.processes.identity import Identity

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0  # seconds before a dead part starts again: 1, 2, 4 ... 30
STEADY_SECONDS = 60.0  # a part that lived this long begins with the first delay again
DRAIN_SECONDS = 8.0  # django-q2's handler of SIGTERM can hang for ever (stack.md 3d)
BEAT_TIMEOUT = 10.0
IDLE_LOOKS = 2

Say = Callable[[str], None]


@dataclass
class Part:
    """One long-lived child. `due`: when it is started again (monotonic), while it is not running."""

    name: str
    run: Callable[[], int | None]
    keep: tuple[int, ...] = ()
    identity: Identity | None = None
    pidfd: int = -1
    started: float = 0.0
    delay: float = FIRST_DELAY
    due: float | None = 0.0


@dataclass
class Keeper:
    """`heartbeat`: seconds between two heartbeats through the queue; the part named workers answers them.

    `until_idle`: end by itself once two looks in a row found nothing that runs on this host.
    """

    home: Path
    parts: list[Part]
    say: Say
    heartbeat: float = 10.0
    until_idle: bool = False
    data_file: DataFile = field(default_factory=DataFile)
    stopping_since: float | None = None
    asked: int = 0
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _errand: forks.Errand | None = None
    _next_beat: float = 0.0
    _last_seen: str | None = None
    _seen_at: float = 0.0
    _away: str = ""
    _idle_looks: int = 0

    def run(self) -> int:
        """Until a signal asked to stop and all parts have ended. Returns the exit code: 0 when all ended by themselves."""
        wakes, writes = socket.socketpair()
        for end in (wakes, writes):
            end.setblocking(False)
            forks.close_in_children.append(end.fileno())
        before = {number: signal.signal(number, self._asked) for number in forks.STOPPING}
        signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
        self._selector.register(wakes, selectors.EVENT_READ, None)
        try:
            return self._keep(wakes)
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._kill_all()
            self._selector.close()
            for end in (wakes, writes):
                forks.close_in_children.remove(end.fileno())
                end.close()

    def _asked(self, *_: object) -> None:
        self.asked += 1

    def _keep(self, wakes: socket.socket) -> int:
        self._seen_at = self._next_beat = time.monotonic()
        while True:
            now = time.monotonic()
            if self.asked:
                if self.asked > 1 or (
                    self.stopping_since is not None and now > self.stopping_since + DRAIN_SECONDS
                ):
                    self.say(
                        "Ending at once."
                        if self.asked > 1
                        else "Some parts do not end by themselves; they are killed."
                    )
                    self._kill_all()
                    return 1 if self.asked > 1 else 0
                if self.stopping_since is None:
                    self._drain(now)
                if not any(part.identity for part in self.parts):
                    members.forget(self.home)
                    return 0
            else:
                if said := self.data_file.changed():
                    self.say(said)
                    self._kill_all()
                    return 1
                self._start_due(now)
                self._look_at_queue(now)
            for key, _ in self._selector.select(self._patience()):
                if isinstance(key.data, Part):
                    self._ended(key.data)
                elif key.fileobj is wakes:
                    with contextlib.suppress(BlockingIOError):
                        wakes.recv(64)

    def _patience(self) -> float:
        now = time.monotonic()
        if self.stopping_since is not None:
            return max(0.0, self.stopping_since + DRAIN_SECONDS - now) + 0.01
        dues = [part.due for part in self.parts if part.due is not None]
        dues.append(self._errand.until if self._errand else self._next_beat)
        return max(0.0, min(dues) - now) + 0.01

    # -- parts ---------------------------------------------------------------------------------------------------

    def _start_due(self, now: float) -> None:
        due = [part for part in self.parts if part.due is not None and part.due <= now]
        for part in due:
            pid = forks.fork(part.run, keep=part.keep)
            part.identity, part.started, part.due = Identity.of(pid), now, None
            part.pidfd = os.pidfd_open(pid)
            self._selector.register(part.pidfd, selectors.EVENT_READ, part)
            if part.name == "workers":
                self._seen_at, self._next_beat = now, now
            members.record(self.home, {each.name: each.identity for each in self.parts if each.identity})
            self.say(f"{part.name} started (process {pid})")

    def _ended(self, part: Part) -> None:
        """A part is dead: the rest of its session too, then again after a while."""
        if part.identity is None:
            return
        pid = part.identity.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # before the wait: until then its number is still its own
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(part.pidfd)
        os.close(part.pidfd)
        part.identity, part.pidfd = None, -1
        now = time.monotonic()
        how = (
            f"exit {os.waitstatus_to_exitcode(status)}"
            if os.WIFEXITED(status)
            else signal.Signals(os.WTERMSIG(status)).name
        )
        if self.stopping_since is not None or self.asked:
            self.say(f"{part.name} ended")
            return
        if now - part.started >= STEADY_SECONDS:
            part.delay = FIRST_DELAY
        part.due = now + part.delay
        self.say(
            f"{part.name} died ({how}) after {now - part.started:.1f} s; it starts again in {part.delay:g} s"
        )
        part.delay = min(part.delay * 2, LONGEST_DELAY)

    def _drain(self, now: float) -> None:
        self.stopping_since = now
        self.say(
            "Stopping."
            if self.until_idle and self._idle_looks
            else "Stopping; agents go on and are found again at the next start. Once more ends it at once."
        )
        self._drop_errand()
        for part in self.parts:
            part.due = None
            if part.identity is not None:
                os.kill(part.identity.pid, signal.SIGTERM)  # not waited for yet: it is still this child

    def _kill_all(self) -> None:
        self._drop_errand()
        for part in self.parts:
            if part.identity is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(part.identity.pid, signal.SIGKILL)
                os.waitpid(part.identity.pid, 0)
                os.close(part.pidfd)
                part.identity, part.pidfd = None, -1
        members.forget(self.home)

    # -- the queue's heartbeat -----------------------------------------------------------------------------------

    def _look_at_queue(self, now: float) -> None:
        """A heartbeat each `heartbeat` seconds; none back in twice that and five more: the queue hangs (stack.md 3b, 3d)."""
        errand = self._errand
        if errand is not None and (errand.read() or now > errand.until):
            self._answer(now)
        workers = next((part for part in self.parts if part.name == "workers"), None)
        if workers is None or workers.identity is None:
            return
        if self._errand is None and now >= self._next_beat:
            self._next_beat = now + self.heartbeat
            self._errand = forks.Errand(
                startup.beat_and_look if self.until_idle else startup.beat, BEAT_TIMEOUT
            )
            self._selector.register(self._errand.fd, selectors.EVENT_READ, self._errand)
        if now - self._seen_at > 2 * self.heartbeat + 5 and not self._away:
            self.say(
                f"workers have not answered for {now - self._seen_at:.0f} s: the queue hangs; they are killed and start again"
            )
            self._seen_at = now
            os.killpg(workers.identity.pid, signal.SIGKILL)

    def _answer(self, now: float) -> None:
        try:
            seen = self._end_errand()
        except forks.ErrandFailed as error:
            if str(error) != self._away:
                self.say(
                    f"The database cannot be used for the queue's heartbeat ({error}); it is tried again."
                )
            self._away = str(error)
            self._seen_at = now  # a database that is away says nothing about the queue
            return
        if self._away:
            self.say("The database answers again.")
            self._away, self._seen_at = "", now
        if seen != self._last_seen:
            self._last_seen, self._seen_at = seen, now

    def _end_errand(self) -> str | None:
        errand, self._errand = self._errand, None
        if errand is None:
            return None
        self._selector.unregister(errand.fd)
        answer: Any = errand.end()
        if not self.until_idle:
            return answer if answer is None else str(answer)
        seen, idle = answer
        self._idle_looks = self._idle_looks + 1 if idle else 0
        if self._idle_looks >= IDLE_LOOKS and not self.asked:
            self.say("Nothing runs on this host any more.")
            self.asked = 1
        return seen if seen is None else str(seen)

    def _drop_errand(self) -> None:
        with contextlib.suppress(forks.ErrandFailed):
            self._end_errand()
