"""The way out of a sandbox without a network: `python -I -S sidecar_forward.py FOLDER PORT PROGRAM ...`.

It listens on the sandbox's own 127.0.0.1, passes each connection to the sidecar's socket in FOLDER, and becomes the program: what
listens is a process beside it, which ends with the sandbox. Standard library only.
"""
# pathlib would cost every start 5 ms and 1 MB.
# ruff: noqa: PTH100, PTH120

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import _thread
import socket

from pipeline.processes.sidecar_http import Reader
from pipeline.processes.sidecar_serve import join

SOCKET = "way-out"
STACK = 256 * 1024  # bytes of each connection's thread


def main(folder: str, port: int, argv: list[str]) -> None:
    """Never returns. The port is bound before the program starts."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    first = os.fork()
    if first == 0:
        os.setsid()
        if os.fork() == 0:  # not the program's child: it waits for its own children only
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            forward(listener, os.open(folder, os.O_PATH | os.O_DIRECTORY))
        os._exit(0)
    os.waitpid(first, 0)
    listener.close()
    try:
        os.execvp(argv[0], argv)  # noqa: S606
    except OSError as error:
        os.write(2, f"{argv[0]} cannot be started: {error.strerror}\n".encode())
        os._exit(127)


def forward(listener: socket.socket, folder: int) -> None:
    _thread.stack_size(STACK)
    while True:
        client, _ = listener.accept()
        try:
            _thread.start_new_thread(one, (client, folder))
        except RuntimeError:  # no thread can be made now
            client.close()


def one(client: socket.socket, folder: int) -> None:
    try:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        way = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        way.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        join(Reader(client), way)
    except OSError:
        pass  # the sidecar is being started again: the program tries again too
    finally:
        client.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
