"""One short question to a program of this host, such as its version. Standard library only."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MOST_OUTPUT = 64 * 1024  # bytes of each stream that are kept


class Answer(NamedTuple):
    """`code` is None if the program did not start or did not answer in time; `problem` says why."""

    code: int | None
    out: str
    err: str
    problem: str = ""


def ask_program(argv: Sequence[str], *, env: Mapping[str, str], timeout: float) -> Answer:
    """Run `argv` with exactly `env`, nothing on stdin, for at most `timeout` seconds."""
    try:
        done = subprocess.run(
            list(argv),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", "", f"{argv[0]} did not answer within {timeout:g} seconds.")
    except OSError as problem:
        return Answer(None, "", "", f"{argv[0]} cannot be started: {problem.strerror}.")
    out, err = (raw[:MOST_OUTPUT].decode(errors="replace") for raw in (done.stdout, done.stderr))
    return Answer(done.returncode, out, err)
