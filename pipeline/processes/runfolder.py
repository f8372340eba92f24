"""The files of one process, in its folder ``runs/<key>/`` under the data folder.

`launch` is held (flock) by whoever launches it just now, `lock` by the runner for as long as it lives; `void`
says that the launch was given up; `identity` says which process the runner is; `log` is what the child wrote;
`answer` is what its chore came to; `exit` says how it ended; `control` is the runner's socket.
"""
# pathlib would cost every runner 5 ms and 1 MB.
# ruff: noqa: PTH104

import os

LOCK = "lock"
LAUNCH = "launch"
VOID = "void"
IDENTITY = "identity"
LOG = "log"
ANSWER = "answer"
EXIT = "exit"
CONTROL = "control"

# Put into the environment of every runner and of every child, so that a stray process can be found by
# reading /proc/*/environ.
MARKER = "HUSKIES_SESSION"
# A runner begins before it has a key: room in its environment, over which it writes its mark (as long a name).
UNNAMED = "HUSKIES_UNNAMED"
UNNAMED_ROOM = 64

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


def write_all(fd: int, data: bytes) -> None:
    """Write every byte. Raises OSError, for example when the disk is full."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_all(fd: int) -> bytes:
    """Every byte to the end. Raises OSError."""
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(folder: str, name: str, data: bytes) -> None:
    """Write a small file so that it is there whole or not at all, also after a power cut (mode 0600).
    Raises OSError.
    """
    part = f"{folder}/{name}.part"
    fd = os.open(part, _NEW_FILE, 0o600)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(part, f"{folder}/{name}")
    sync_folder(folder)
