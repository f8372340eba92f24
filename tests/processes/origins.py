"""A sidecar that is really running, and what stands at its other end."""

import contextlib
import http.client
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.processes import sidecars

TOKEN, KEY = "hsk-token-of-this-session", "sk-the-real-key-CANARY"


class Origin:
    """A server of one connection at a time per thread: `answers` gets (connection, raw head) and writes what it likes."""

    def __init__(self, encrypted: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        if encrypted is not None:
            self.listener = encrypted.wrap_socket(self.listener, server_side=True)
        self.port = self.listener.getsockname()[1]
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.answer: Callable[[socket.socket, str], None] = fixed(b'{"ok": true}')
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while self.listener.fileno() >= 0:
            with contextlib.suppress(OSError):
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = connection.recv(65536)
                    if not more:
                        return
                    data += more
                raw, _, data = data.partition(b"\r\n\r\n")
                head = raw.decode()
                self.heads.append(head)
                fields = {
                    line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip()
                    for line in head.split("\r\n")[1:]
                }
                size = int(fields.get("content-length", "0"))
                if fields.get("transfer-encoding") == "chunked":
                    while not data.endswith(b"0\r\n\r\n"):
                        data += connection.recv(65536)
                    size = len(data)
                while len(data) < size:
                    data += connection.recv(65536)
                self.bodies.append(data[:size])
                data = data[size:]
                self.answer(connection, head)

    def close(self) -> None:
        self.listener.close()


def fixed(body: bytes, status: str = "200 OK", fields: str = "") -> Callable[[socket.socket, str], None]:
    def answer(connection: socket.socket, head: str) -> None:
        connection.sendall(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{fields}\r\n".encode() + body
        )

    return answer


@pytest.fixture
def origin() -> Iterator[Origin]:
    made = Origin()
    yield made
    made.close()


Begin = Callable[..., int]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """`begin(base_url=…, allow=…)`: a sidecar that is ready; the port where it listens. `begin.process` is the last one."""
    running: list[subprocess.Popen[bytes]] = []

    def start(**order: Any) -> int:
        port = sidecars.free_port()
        step = sidecars.sidecar(port=port, **({"token": TOKEN, "key": KEY} | order))
        process = subprocess.Popen(
            step["argv"],
            env=step["env"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(step["stdin"].encode())
        process.stdin.close()
        process.stdin = None
        line = process.stdout.readline()
        assert line == b"ready\n", (line, process.stderr and process.stderr.read())
        start.process = process  # type: ignore[attr-defined]
        return port

    yield start
    for process in running:
        process.kill()
        out, err = process.communicate()
        assert err == b"", err
        assert KEY.encode() not in out and TOKEN.encode() not in out


def ask(
    port: int, method: str = "POST", target: str = "/v1/messages", body: Any = b"{}", **fields: str
) -> tuple[int, bytes, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    with contextlib.closing(connection):
        connection.request(method, target, body=body, headers=named)
        with connection.getresponse() as answer:
            return answer.status, answer.read(), answer
