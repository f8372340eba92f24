"""Which process is meant: pid, start time and boot id together name one process for ever, also after the
pid was used again.
"""

import json
from dataclasses import dataclass
from typing import Self

from pipeline.processes import proc
from pipeline.processes.proc import boot_id

__all__ = ["Identity", "Marked", "boot_id", "is_alive", "marked_processes", "open_pidfd", "send_signal"]


@dataclass(frozen=True)
class Identity:
    """`start_time` is field 22 of /proc/<pid>/stat, in clock ticks since boot."""

    pid: int
    start_time: int
    boot_id: str

    def to_json(self) -> str:
        return json.dumps(
            {"version": 1, "pid": self.pid, "start_time": self.start_time, "boot_id": self.boot_id}
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError when the text is no identity."""
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(f"{text[:100]!r} is not the identity of a process.")
        pid, start_time, boot = value.get("pid"), value.get("start_time"), value.get("boot_id")
        if not isinstance(pid, int) or not isinstance(start_time, int) or not isinstance(boot, str):
            raise ValueError(f"{text[:100]!r} is not the identity of a process.")
        return cls(pid, start_time, boot)

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The identity of the process that has this pid now; None when there is none."""
        found = proc.process(pid)
        return None if found is None else cls(pid, found.start_time, boot_id())


@dataclass(frozen=True)
class Marked:
    """A process whose environment carries a marker; `value` is what it says."""

    pid: int
    start_time: int
    value: str


def is_alive(identity: Identity) -> bool:
    """Whether this very process still runs. A zombie does not, and nothing of another boot does."""
    if identity.boot_id != boot_id():
        return False
    found = proc.process(identity.pid)
    return found is not None and found.start_time == identity.start_time and not found.dead


def open_pidfd(identity: Identity) -> int | None:
    """A descriptor that becomes readable when this very process ends; None when it has. The caller closes
    it.
    """
    return proc.open_exactly(identity.pid, identity.start_time) if identity.boot_id == boot_id() else None


def send_signal(identity: Identity, sig: int) -> bool:
    """Signal this very process and never another. False when it is gone, or belongs to another user."""
    return identity.boot_id == boot_id() and proc.signal_exactly(identity.pid, identity.start_time, sig)


def marked_processes(name: str, value: str | None = None) -> list[Marked]:
    """Living processes with the variable `name` in their environment, with this value when one is given.
    Other users' are not seen.
    """
    return [Marked(one.pid, one.start_time, one.value) for one in proc.marked(name, value)]
