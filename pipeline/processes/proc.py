"""What the kernel says about processes: /proc and pidfd. Shared by the runner and the server, so it imports
next to nothing.
"""
# pathlib would cost every runner 5 ms and 1 MB.
# ruff: noqa: PTH208

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # the signal module itself pulls in enum: 5 ms and 1 MB in every runner

_MAX_STAT = 4096
_MAX_ENVIRON = 4 << 20  # the kernel holds arguments and environment below this at the usual stack size


class Process:
    """One line of /proc/<pid>/stat. `start_time` is in clock ticks since boot; (pid, start_time) is unique
    until the next boot.
    """

    __slots__ = ("name", "parent", "pid", "start_time", "state", "value")

    def __init__(self, pid: int, parent: int, start_time: int, state: str, name: str) -> None:
        self.pid = pid
        self.parent = parent
        self.start_time = start_time
        self.state = state
        self.name = name
        self.value = ""

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.name} {self.state} started {self.start_time}>"

    @property
    def dead(self) -> bool:
        """A zombie only waits for its parent to read its exit status: it runs no more."""
        return self.state in "ZX"


def _read(path: str, limit: int) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # A read of /proc may stop at a page, so only an empty one is the end.
        data = os.read(fd, limit)
        while len(data) < limit and (more := os.read(fd, limit - len(data))):
            data += more
        return data
    except OSError:  # it ended while we read
        return None
    finally:
        os.close(fd)


def process(pid: int) -> Process | None:
    """The process with this pid now, or None."""
    data = _read(f"/proc/{pid}/stat", _MAX_STAT)
    if not data:
        return None
    # The name stands in parentheses and may itself hold spaces and parentheses.
    head, _, rest = data.rpartition(b")")
    fields = rest.split()
    name = head.partition(b"(")[2].decode("utf-8", "replace")
    return Process(pid, int(fields[1]), int(fields[19]), fields[0].decode(), name)


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(root: int) -> list[Process]:
    """All processes below `root`, living or zombie, parents before children.

    A whole look at /proc: the kernel has no call that lists a tree. A process born meanwhile may be missing.
    """
    children: dict[int, list[Process]] = {}
    for pid in pids():
        if (found := process(pid)) is not None:
            children.setdefault(found.parent, []).append(found)
    below: list[Process] = []
    queue = [root]
    while queue:
        for child in children.pop(queue.pop(), []):
            below.append(child)
            queue.append(child.pid)
    return below


def marked(name: str, value: str | None) -> list[Process]:
    """Living processes whose environment (as it was at exec) holds `name`, with this value when one is given.

    `value` of each is what the environment says. Processes of other users are not seen.
    """
    prefix = name.encode() + b"="
    found: list[Process] = []
    for pid in pids():
        environ = _read(f"/proc/{pid}/environ", _MAX_ENVIRON)
        if not environ or prefix not in environ:
            continue
        for entry in environ.split(b"\0"):
            if entry.startswith(prefix) and value in (None, entry[len(prefix) :].decode("utf-8", "replace")):
                one = process(pid)
                if one is not None and not one.dead:
                    one.value = entry[len(prefix) :].decode("utf-8", "replace")
                    found.append(one)
                break
    return found


def open_exactly(pid: int, start_time: int) -> int | None:
    """A pidfd for this very process, or None when it is gone: a pid that was given to another process since
    is not opened.
    """
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    now = process(pid)
    if now is None or now.start_time != start_time or now.dead:
        os.close(fd)
        return None
    return fd


def signal_exactly(pid: int, start_time: int, number: int) -> bool:
    """Send a signal to this very process; False when it is gone or not ours to signal."""
    fd = open_exactly(pid, start_time)
    if fd is None:
        return False
    try:
        _signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def boot_id() -> str:
    """The kernel's random name of this boot. Raises OSError where there is no /proc."""
    fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64).decode().strip()
    finally:
        os.close(fd)
