"""The file operations of a step, done by the runner itself: no program is started for making a few small
files.
"""
# pathlib would cost every runner 5 ms and 1 MB.
# ruff: noqa: PTH102, PTH103, PTH104, PTH208

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 8 << 20
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def carry_out(operation: list[object]) -> "Iterator[None]":
    """Do one operation; yields between pieces, so that the caller can hear a stop. Raises OSError.

    ["mkdir", path] with its parents; ["write", path, text, mode]; ["copy", from, to] one regular file;
    ["rename", from, to]; ["remove", path] a file or a folder with all below it, without following links,
    nothing when absent; ["reserve", path] an empty folder where nothing is.
    """
    word, *values = operation
    yield from _WORDS[str(word)](*values)


def _mkdir(path: str) -> "Iterator[None]":
    os.makedirs(path, mode=0o700, exist_ok=True)
    yield


def _reserve(path: str) -> "Iterator[None]":
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:  # whatever is there, a link too, stays as it is
        pass
    yield


def _write(path: str, text: str, mode: int) -> "Iterator[None]":
    fd = os.open(path, _NEW_FILE, 0o600)
    try:
        view = memoryview(text.encode("utf-8", "surrogateescape"))
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
    yield


def _copy(source: str, target: str) -> "Iterator[None]":
    # O_NONBLOCK: opening a FIFO must not hang the runner.
    read = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(read).st_mode
        if mode & 0o170000 != 0o100000:
            raise OSError(22, "not a regular file", source)
        write = os.open(target, _NEW_FILE, 0o600)
        try:
            while os.sendfile(write, read, None, _CHUNK):
                yield
            os.fchmod(write, mode & 0o777)
        finally:
            os.close(write)
    finally:
        os.close(read)


def _rename(source: str, target: str) -> "Iterator[None]":
    os.rename(source, target)
    yield


def _remove(path: str) -> "Iterator[None]":
    folder, _, name = path.rstrip("/").rpartition("/")
    parent = os.open(folder or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from _remove_in(parent, name)
    finally:
        os.close(parent)


def _remove_in(parent: int, name: str) -> "Iterator[None]":
    """By folder descriptors: a link put in the place of a folder meanwhile leads nowhere."""
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (1, 21):  # EPERM, EISDIR: Linux says EISDIR for a folder, POSIX says EPERM
            raise
    fd = os.open(name, _FOLDER, dir_fd=parent)
    try:
        os.fchmod(fd, 0o700)  # a read-only folder would keep its files
        for inner in os.listdir(fd):
            yield from _remove_in(fd, inner)
            yield
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


_WORDS: "dict[str, Callable[..., Iterator[None]]]" = {
    "mkdir": _mkdir,
    "write": _write,
    "copy": _copy,
    "rename": _rename,
    "remove": _remove,
    "reserve": _reserve,
}
