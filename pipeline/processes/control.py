"""Asks a running runner over its control socket: stop, lease, status, message, interrupt, close_stdin."""

import json
import os
import socket
import time
from pathlib import Path

from pipeline.processes.runfolder import CONTROL

VERSION = 1
_MAX_ANSWER = 65536


class ControlUnavailable(Exception):
    """The runner of a process does not answer."""


def ask(runs: Path, key: str, request: dict[str, object], timeout: float = 2.0) -> dict[str, object]:
    """One request, one answer: {"ok": True, ...} or {"ok": False, "error": sentence}. `timeout` in seconds,
    for all of it.

    Raises ControlUnavailable when the runner has ended, has not begun, or does not answer in time.
    """
    until = time.monotonic() + timeout
    line = json.dumps({"version": VERSION, **request}, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    try:
        folder = os.open(runs / key, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ControlUnavailable(
            f"Process {key} could not be asked: it has no run folder ({error.strerror})."
        ) from error
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            # A socket address holds 107 bytes; the way through the descriptor is always short enough.
            _connect(connection, f"/proc/self/fd/{folder}/{CONTROL}", until)
            connection.sendall(line)
            answer = _read_line(connection, until)
    except TimeoutError as error:
        raise ControlUnavailable(
            f"Process {key} did not answer within {timeout:g} seconds. It may be busy: ask again."
        ) from error
    except OSError as error:
        raise ControlUnavailable(
            f"Process {key} cannot be asked: its runner has ended or has not begun ({error.strerror})."
        ) from error
    finally:
        os.close(folder)
    try:
        value = json.loads(answer)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ControlUnavailable(
            f"Process {key} broke off its answer: its runner ended meanwhile. Look at how it ended."
        )
    return value


def _connect(connection: socket.socket, path: str, until: float) -> None:
    while True:
        try:
            connection.connect(path)
            return
        except BlockingIOError:  # a local socket says so at once when too many others wait to be let in
            if time.monotonic() >= until:
                raise TimeoutError from None
            time.sleep(0.005)


def _read_line(connection: socket.socket, until: float) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < _MAX_ANSWER:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        more = connection.recv(_MAX_ANSWER)
        if not more:
            break
        data += more
    return data
