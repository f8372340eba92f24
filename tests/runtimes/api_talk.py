"""Our agent of the direct-API runtimes with the stand-in for its provider, and with somebody who talks to it."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agents.runtimes.api import ANTHROPIC, GEMINI, OPENAI, DirectApi
from agents.runtimes.base import Credential, Event, Launch, Outcome
from agents.standin import StandIn
from tests.runtimes.conftest import confined_argv
from tests.runtimes.records import STDERR, STDOUT, Record, bodies, ended, fed, note

KEY = "sk-test-0123456789abcdef"
USAGE = {"input": 1000, "output": 100, "cache_read": 50}
others_long = pytest.mark.parametrize(
    "runtime",
    [OPENAI, *(pytest.param(one, marks=pytest.mark.long) for one in (GEMINI, ANTHROPIC))],
    ids=lambda one: one.name,
)


def real(test: Any) -> Any:
    return pytest.mark.needs_api(pytest.mark.needs_bubblewrap(test))


def against(standin: StandIn, runtime: DirectApi, **entry: Any) -> dict[str, Any]:
    key = Credential("api_key", KEY, standin.url("default") + runtime.version)
    return {"level": "bubblewrap", "credential": key, "agent_config": {"provider_retries": 1, **entry}}


def scripted(turns: list[Any]) -> StandIn:
    return StandIn({"scenarios": {"default": {"turns": turns, "api_key": KEY}}})


def requested(standin: StandIn, number: int = -1) -> str:
    return json.dumps(standin.requests("model")[number]["body"])


def summed(events: list[Event]) -> list[dict[str, int]]:
    """What each request used in the end."""
    found: dict[str, dict[str, int]] = {}
    for body in bodies(events, "usage"):
        one = found.setdefault(body["request_id"], dict.fromkeys(("input", "output", "cache_read"), 0))
        for name in one:
            one[name] += body[name]
    return list(found.values())


class Talking:
    """Our agent as the runner has it: its stdin stays open."""

    def __init__(self, runtime: DirectApi, launch: Launch, child: subprocess.Popen[bytes]) -> None:
        self.runtime, self.launch, self.child = runtime, launch, child
        self.parser = runtime.parser()
        self.events: list[Event] = fed(self.parser, [note("step-start", step="agent")])

    def until(self, kind: str, **wanted: Any) -> dict[str, Any]:
        """The body of the next such event."""
        assert self.child.stdout is not None
        for line in self.child.stdout:
            new = fed(self.parser, [Record(STDOUT, line.rstrip(b"\n"))])
            self.events += new
            for event in new:
                if event.kind == kind and all(event.body.get(key) == value for key, value in wanted.items()):
                    return event.body
        raise AssertionError(
            f"no {kind} with {wanted} came: {self.child.stderr and self.child.stderr.read()!r}"
        )

    def tell(self, line: str | None) -> None:
        assert line is not None and self.child.stdin is not None
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()

    def end(self) -> Outcome:
        out, err = self.child.communicate(timeout=60)
        self.events += fed(self.parser, [Record(STDOUT, raw) for raw in out.splitlines()])
        self.events += fed(self.parser, [Record(STDERR, raw) for raw in err.splitlines()])
        code = self.child.returncode
        return self.parser.outcome(ended(code if code >= 0 else None, signal=-code if code < 0 else None))


@contextmanager
def talking(runtime: DirectApi, launch: Launch, files: list[Any] | None = None) -> Iterator[Talking]:
    command = runtime.command(launch)
    command.files.extend(files or [])
    argv = confined_argv(launch, command)
    pipe = subprocess.PIPE
    child = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=command.env, cwd=launch.copy)
    try:
        assert child.stdin is not None
        child.stdin.write(command.stdin.encode())
        child.stdin.flush()
        yield Talking(runtime, launch, child)
    finally:
        child.kill()
        child.communicate()
