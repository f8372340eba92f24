"""A session of a runtime from its command to its outcome, with the real child."""

from typing import Any

from agents.runtimes.base import Event, Launch, Outcome, Runtime
from tests.runtimes.conftest import run
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
