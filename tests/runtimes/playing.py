"""A session of a runtime from its command to its outcome, with the real child."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

from agents.runtimes.base import Event, Launch, Outcome, Runtime
from tests.runtimes.conftest import confined_argv, run
from tests.runtimes.records import STDERR, STDOUT, Record, ended, fed, note


def play(runtime: Runtime, launch: Launch, files: list[Any] | None = None) -> tuple[list[Event], Outcome]:
    command = runtime.command(launch)
    command.files.extend(files or [])
    done = run(launch, command)
    parser = runtime.parser()
    events = fed(parser, [note("step-start", step="agent")])
    events += fed(parser, [Record(STDOUT, raw) for raw in done.stdout.splitlines()])
    events += fed(parser, [Record(STDERR, raw) for raw in done.stderr.splitlines()])
    code = done.returncode
    return events, parser.outcome(ended(code if code >= 0 else None, signal=-code if code < 0 else None))


def talk(
    runtime: Runtime, launch: Launch, reply: Callable[[Event], str | None], files: list[Any] | None = None
) -> tuple[list[Event], Outcome]:
    """The same with somebody there: `reply` gives the line that an event is answered with. Its stdin ends with a turn that nothing follows."""
    command = runtime.command(launch)
    command.files.extend(files or [])
    parser = runtime.parser()
    events = fed(parser, [note("step-start", step="agent")])
    with subprocess.Popen(
        confined_argv(launch, command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=command.env,
        cwd=launch.copy,
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(command.stdin.encode())
        child.stdin.flush()
        for raw in child.stdout:
            found = parser.feed(Record(STDOUT, raw.rstrip(b"\n")))
            events += found
            lines = [line for event in found if (line := reply(event)) is not None]
            for line in lines:
                child.stdin.write(line.rstrip("\n").encode() + b"\n")
                child.stdin.flush()
            if not lines and command.turn_ends.items() <= json.loads(raw).items():
                child.stdin.close()
    code = child.returncode
    return events, parser.outcome(ended(code if code >= 0 else None, signal=-code if code < 0 else None))
