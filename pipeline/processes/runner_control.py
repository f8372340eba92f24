"""The runner's control socket: one JSON line in, one JSON line out. A slow, silent or talkative client is
dropped; the loop never waits for one.
"""
# pathlib would cost every runner 5 ms and 1 MB.
# ruff: noqa: PTH101, PTH108

import _socket
import os
from time import monotonic, sleep

from pipeline.processes.runfolder import CONTROL
from pipeline.processes.runner_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.processes.runner_poll import Poll

VERSION = 1
MAX_REQUEST = 65536
MAX_CLIENTS = 32
CLIENT_SECONDS = 10.0  # a connection that asks nothing for so long is closed


class Refused(Exception):
    """A request that cannot be met, as a sentence."""


class Control:
    """Listens in the current folder. `answer` gets each request and returns the fields of the answer, or
    raises Refused.

    Raises OSError when the socket cannot be bound.
    """

    def __init__(self, answer: "Callable[[dict[str, object]], dict[str, object]]", poll: "Poll") -> None:
        self._answer = answer
        self._poll = poll
        self._clients: dict[int, bytearray] = {}
        self._until: dict[int, float] = {}  # oldest first
        self._socket = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        )
        # A relative path: an absolute one may be longer than the 107 bytes that a socket address holds.
        self._socket.bind(CONTROL)
        os.chmod(CONTROL, 0o600)
        self._socket.listen(128)
        poll.watch(self._socket.fileno(), self._accept)

    def deadline(self) -> float | None:
        """Monotonic seconds at which `expire` has something to do."""
        for until in self._until.values():
            return until
        return None

    def expire(self, now: float) -> None:
        for fd in [fd for fd, until in self._until.items() if until <= now]:
            self._drop(fd)

    def close(self) -> None:
        for fd in list(self._clients):
            self._drop(fd)
        self._poll.unwatch(self._socket.fileno())
        self._socket.close()
        os.unlink(CONTROL)

    def _accept(self, _: int) -> None:
        try:
            fd, _address = self._socket._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, ConnectionError):  # it went away again
            return
        except OSError:
            # No descriptor is left. The listener stays readable, so without a pause the loop would spin.
            sleep(0.05)
            return
        os.set_blocking(fd, False)
        if len(self._clients) >= MAX_CLIENTS:
            self._drop(next(iter(self._until)))
        self._clients[fd] = bytearray()
        self._until[fd] = monotonic() + CLIENT_SECONDS
        self._poll.watch(fd, self._read)

    def _drop(self, fd: int) -> None:
        self._poll.unwatch(fd)
        del self._clients[fd], self._until[fd]
        os.close(fd)

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(fd)
            return
        waiting = self._clients[fd]
        waiting += data
        while (end := waiting.find(b"\n")) >= 0:
            line = bytes(waiting[:end])
            del waiting[: end + 1]
            if not self._send(
                fd, self._handle(line) if end <= MAX_REQUEST else _error("The request is longer than 64 KiB.")
            ):
                return
            del self._until[fd]  # to the end of the order
            self._until[fd] = monotonic() + CLIENT_SECONDS
        if len(waiting) > MAX_REQUEST and self._send(fd, _error("The request is longer than 64 KiB.")):
            self._drop(fd)

    def _send(self, fd: int, answer: dict[str, object]) -> bool:
        data = dumps(answer).encode() + b"\n"
        try:
            if os.write(fd, data) == len(data):
                return True
        except OSError:  # gone, or does not read its answers
            pass
        self._drop(fd)
        return False

    def _handle(self, line: bytes) -> dict[str, object]:
        try:
            request = loads(line.decode())
        except ValueError as error:
            return _error(f"The request is not a line of JSON: {error}.")
        if not isinstance(request, dict):
            return _error("The request is not a JSON object.")
        if request.get("version") != VERSION:
            return _error(
                f"The request has version {request.get('version')!r}; this runner speaks version {VERSION}."
            )
        try:
            return {"ok": True, **self._answer(request)}
        except Refused as refusal:
            return _error(str(refusal))


def _error(sentence: str) -> dict[str, object]:
    return {"ok": False, "error": sentence}
