"""The table of levels and attempts: what an agent gets at each rung of the ladder, honestly also where it gets much.

`none` and `limits` keep an agent by its program alone, which is offered tools for edits and no shell: these rows say why. The agent's
environment is clean on every rung.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents import guarded
from pipeline.processes import confine, sidecars
from pipeline.processes.sweep import sweep_marked
from tests.escapes import attacks
from tests.processes.runs import Run
from tests.runtimes.conftest import make_repository

ALL, FREE, SHARED, NEVER = "all", "none limits", "none limits bubblewrap", ""
GETS = {
    # attempt: the rungs on which it gets what it wants
    "work in its own folders": ALL,
    "read a server variable in its own environment": NEVER,
    "read the environment of other processes": FREE,
    "read the secret key": FREE,
    "read the database": FREE,
    "read the settings file": FREE,
    "read another copy": FREE,
    "read another sessions log in": FREE,
    "read a key in the owners home": FREE,
    "read through a link": FREE,
    "read through the root of another process": FREE,
    "write outside": FREE,
    "write outside through a link": FREE,
    "write outside by dots": FREE,
    "move a file outside": FREE,
    "change a file outside by a hard link": FREE,
    "make a settings file of an agent program that is not there yet": FREE,
    "change a settings file of an agent program": FREE,
    "change gits settings and hooks": FREE,
    "put another folder in the place of protected ones": FREE,
    "reach the server with a signal": FREE,
    "find an open descriptor": NEVER,
    "type into a terminal": NEVER,
    "type into its own standard input": NEVER,
    "gain rights by a program that has more": "none",
    "write a file without end": "none",
    "fork without end": "none",
    "leave a core file": NEVER,
    "leave a process behind": NEVER,
    # It gets an answer there, and no rights: every page wants a log-in (tests/pages/test_rights.py).
    "reach the servers port by its address": SHARED,
    "reach the servers port by a name": SHARED,
    "reach the servers port by ipv6": SHARED,
    "ask a name server": SHARED,
    "find a way to another network": SHARED,
    "reach a socket of the server": FREE,
    "reach an abstract socket": SHARED,
    "reach docker": FREE,
    "reach the servers port through the way out": NEVER,
}

CANARIES = (
    *(
        "DATABASE_URL",
        "HUSKIES_SECRET_KEY",
        "HUSKIES_OLD_SECRET_KEYS",
        "HUSKIES_HOME",
        "HUSKIES_URL",
        "HUSKIES_TEST_POSTGRESQL",
    ),
    *(
        "ANTHROPIC_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ),
    *(
        "SSH_AUTH_SOCK",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "KUBECONFIG",
        "DOCKER_HOST",
        "PGPASSWORD",
        "NPM_TOKEN",
    ),
    *(
        "LD_PRELOAD_CANARY",
        "PYTHONPATH_CANARY",
        "GIT_SSH_COMMAND",
        "DBUS_SESSION_BUS_ADDRESS",
        "XDG_RUNTIME_DIR",
    ),
)


def answering(listener: socket.socket) -> None:
    def echo() -> None:
        with contextlib.suppress(OSError):
            while True:
                if listener.type == socket.SOCK_DGRAM:
                    data, sender = listener.recvfrom(100)
                    listener.sendto(data, sender)
                else:
                    one, _ = listener.accept()
                    with one:
                        one.sendall(one.recv(100))

    threading.Thread(target=echo, daemon=True).start()


class World:
    """A server's folders, processes and sockets, and a session's place among them."""

    def __init__(self, root: Path, close: contextlib.ExitStack) -> None:
        self.root, self.data = root, root / "data"
        for name in ("copies/other", "sessions/other/config", "control"):
            (self.data / name).mkdir(parents=True)
        self.outside, self.owner = root / "outside", root / "owner"
        (self.owner / ".ssh").mkdir(parents=True)
        self.outside.mkdir()
        secrets = ("secret.key", "db.sqlite3", "copies/other/work.txt", "sessions/other/config/auth.json")
        for path in (
            *(self.data / name for name in secrets),
            self.owner / ".ssh/id_ed25519",
            root / "settings.env",
        ):
            path.write_text("CANARY")
        (self.outside / "precious").write_text("precious")
        self.docker = Path("/run" if os.access("/run", os.W_OK) else root, f"docker-{os.getpid()}.sock")
        sockets = {
            "port": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "port6": (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)),
            "udp": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "socket": (socket.AF_UNIX, socket.SOCK_STREAM, str(self.data / "s")),
            "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, f"\0huskies-test-{os.getpid()}"),
            "docker": (socket.AF_UNIX, socket.SOCK_STREAM, str(self.docker)),
        }
        self.places: dict[str, Any] = {}
        for name, (family, kind, address) in sockets.items():
            listener = close.enter_context(socket.socket(family, kind))
            listener.bind(address)
            if kind == socket.SOCK_STREAM:
                listener.listen()
            answering(listener)
            bound = listener.getsockname()
            self.places[name] = (
                bound[1]
                if isinstance(bound, tuple)
                else (bound if isinstance(bound, str) else bound.decode()).lstrip("\0")
            )
        close.callback(self.docker.unlink)
        server = close.enter_context(
            subprocess.Popen(["sleep", "1000"], env={"PATH": os.defpath, "DATABASE_URL": "CANARY"})
        )
        close.callback(server.kill)
        self.server = server.pid

    def session(self, level: str) -> tuple[Run, Path]:
        """A run at this level, as a session's order has it."""
        key = level.replace("+", "-")
        copy, own = self.data / "copies" / key, self.data / "sessions" / key
        make_repository(copy)
        (copy / ".gemini").mkdir()
        (copy / ".gemini/settings.json").write_text("{}")
        for name in ("home", "tmp", "config"):
            (own / name).mkdir(parents=True)
        alone, protected = level == "bubblewrap+network", guarded.places(copy)
        way = own / "net" if alone else None
        places = {
            **self.places,
            **{
                "data": str(self.data),
                "settings": str(self.root / "settings.env"),
                "owner": str(self.owner),
                "outside": str(self.outside),
            },
            **{"copy": str(copy), "home": str(own / "home"), "tmp": str(own / "tmp"), "server": self.server},
            "way_out": confine.PORT_INSIDE,
        }
        argv = confine.confined(
            [sys.executable, "-I", "-S", attacks.__file__, json.dumps(places)],
            level=level,
            writable=[copy, own / "home", own / "tmp", own / "config"],
            readable=[Path(attacks.__file__)],
            hidden=[self.data, self.root / "settings.env"],
            network=not alone,
            cwd=copy,
            way_out=way,
            guarded=protected,
        )
        env = confine.allowed_environment(own / "home", own / "tmp", {})
        guard = {"name": "guard", "files": [["reserve", str(one)] for one in guarded.reserved(protected)]}
        agent = {"name": "agent", "argv": argv, "cwd": str(copy), "env": env, "main": True, "helped": alone}
        steps = [guard, agent] if confine.is_confined(level) else [agent]
        run = Run(self.data / "runs", steps, dict(confine.limits_of(level)))
        if way is not None:
            allow = [{"host": "example.com", "port": None}]
            run.spec["helpers"] = [sidecars.sidecar(folder=way, allow=allow)]
        return run, copy


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as close, pytest.MonkeyPatch.context() as patch:
        made = World(tmp_path_factory.mktemp("escapes"), close)
        for name in CANARIES:
            patch.setenv(name, "CANARY")
        patch.setenv("HOME", str(made.owner))
        yield made


Tried = Callable[[str], dict[str, bool]]


@pytest.fixture(scope="module")
def tried(world: World) -> Tried:
    """The results of all attempts at a level; each level is tried once."""
    known: dict[str, dict[str, bool]] = {}

    def results(level: str) -> dict[str, bool]:
        if level not in known:
            run, copy = world.session(level)
            run.start()
            record = run.finish()
            assert record["outcome"] == "exited", (record, run.notes(), run.output(2))
            assert run.alive() == [] and sweep_marked(run.key) == []
            assert record["verified"] is True
            (line,) = run.output()
            known[level] = json.loads(line)
            if confine.is_confined(level):
                looked = subprocess.run(
                    ["git", "status", "--porcelain"], cwd=copy, capture_output=True, text=True, check=True
                )
                # What is reserved for protected paths is nothing to git.
                assert {row.split()[-1] for row in looked.stdout.splitlines()} == {
                    ".gemini/",
                    "link",
                    "moved",
                    "own.txt",
                    "way",
                }
        return known[level]

    return results


def rows() -> Iterator[Any]:
    for level in confine.LADDER:
        for name in GETS:
            # Where the network is this machine's, whether there is another one is not the question.
            if name != "find a way to another network" or level == "bubblewrap+network":
                marks = pytest.mark.needs_bubblewrap if confine.is_confined(level) else ()
                yield pytest.param(level, name, marks=marks, id=f"{level}: {name}")


@pytest.mark.parametrize(("level", "name"), list(rows()))
def test_an_agent_gets_what_its_level_lets_it_get_and_no_more(tried: Tried, level: str, name: str) -> None:
    expected = GETS[name] == ALL or level in GETS[name].split()
    assert tried(level)[name] is expected


def test_every_attempt_has_a_row() -> None:
    assert list(attacks.ATTEMPTS) == list(GETS)


@pytest.mark.needs_bubblewrap
def test_what_was_there_is_there_unchanged_after_the_confined_ones(world: World, tried: Tried) -> None:
    for level in ("bubblewrap", "bubblewrap+network"):
        before = {path: path.stat().st_mtime_ns for path in world.outside.iterdir()}
        tried(level)
        copy = world.data / "copies" / level.replace("+", "-")
        assert {path: path.stat().st_mtime_ns for path in world.outside.iterdir()} == before
        assert (copy / ".gemini/settings.json").read_text() == "{}"
        assert not any((copy / ".claude").iterdir()) and not any((copy / ".mcp.json").iterdir())
