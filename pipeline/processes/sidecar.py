"""The program between an agent and the network: `python -I -S sidecar.py`, one for a session, its order as JSON on stdin.

It holds the provider's key, so that the agent holds only a token that is worth nothing elsewhere and dies with the session; and it
is the only way out where the agent has no network of its own. The runner starts it outside of the sandbox and ends it.

{"listen": {"port": number} or {"folder": path}, "token": text, "key": text, "upstream": {"scheme", "host", "port", "path"} or null,
"allow": list or null, "proxies": {}} (see `sidecar_reach.Reach`). The key is in this process's memory only: its order came through
a pipe, it writes nothing down, and other processes of the same user cannot look into it. On stdout: `ready`, then one line for each
place that was refused.
"""
# pathlib would cost every start 5 ms and 1 MB.
# ruff: noqa: PTH100, PTH101, PTH103, PTH108, PTH120

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import _thread
import socket

from pipeline.processes.runfolder import read_all
from pipeline.processes.runner_child import keep_others_out
from pipeline.processes.runner_json import loads
from pipeline.processes.sidecar_reach import Reach
from pipeline.processes.sidecar_serve import Connection, Upstream

SOCKET = "way-out"
MOST_TOLD = 100  # places
STACK = 512 * 1024  # bytes of each connection's thread
BACKLOG = 128


def main() -> int:
    """Serves until it is killed; returns when it cannot begin."""
    keep_others_out()
    order = loads(read_all(0).decode())
    if not isinstance(order, dict):
        return say("the order is not an object", 64)
    try:
        listener = listening(order["listen"])
    except OSError as error:
        return say(f"it could not listen: {error.strerror or error}", 71)
    told: set[str] = set()

    def tell(line: str) -> None:
        if line not in told and len(told) < MOST_TOLD:
            told.add(line)
            say(line)

    where = order.get("upstream")
    upstream = Upstream(where, order["key"], order["token"]) if where else None
    reach = Reach(order.get("allow"), order.get("proxies") or {})
    _thread.stack_size(STACK)
    say("ready")
    while True:
        try:
            client, _ = listener.accept()
            _thread.start_new_thread(Connection(client, upstream, reach, tell).serve, ())
        except (ConnectionError, RuntimeError):  # it went away again, or no thread can be made now
            continue
        except OSError as error:
            return say(f"it could not accept a connection: {error.strerror}", 71)


def listening(where: dict[str, object]) -> socket.socket:
    """On a port of this host's own address, or on a socket in a folder of the session. Raises OSError."""
    if "port" in where:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(str(where["port"]))))
    else:
        os.makedirs(str(where["folder"]), exist_ok=True)
        # An absolute path may be longer than the 107 bytes that a socket's address holds.
        os.chdir(str(where["folder"]))
        if os.path.lexists(SOCKET):
            os.unlink(SOCKET)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(SOCKET)
        os.chmod(SOCKET, 0o600)
    listener.listen(BACKLOG)
    return listener


def say(line: str, code: int = 0) -> int:
    os.write(1, line.encode("utf-8", "replace").replace(b"\n", b" ")[:1000] + b"\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
