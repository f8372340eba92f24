"""Chores: git work that may take long, as a step of a runner, which does it in a fork of itself: request on stdin. `python -I -S chores.py
NAME` does the same by hand.

A request is one JSON object. The last line of standard output is `{"result": {...}}`, or `{"refused":
{"kind": ..., "message": ...}}` when something about the repository stands in the way; both end with code 0.
Code 75 is trouble of the machine (disk full, git killed, no answer): the server tries again. Other lines are
progress, for people."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.git.command import GitError, control_environment, network_environment
from pipeline.git.control import RefMoved
from pipeline.git.names import HostileName
from pipeline.git.refusals import Refused

Chore = Callable[[dict[str, Any]], dict[str, Any]]
CHORES = ("fetch", "intake", "snapshot", "candidate", "land", "probe", "discard", "repack")
TROUBLE = 75  # EX_TEMPFAIL
_TOWARDS_THE_PROJECT = {"fetch", "candidate", "land", "probe"}


def chore_step(name: str, request: dict[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
    """The runner step that does a chore. Those that talk to the project's own repository get the person's ssh
    agent and credential helpers, the others nothing of the machine."""
    if name not in CHORES:
        raise ValueError(f"There is no chore {name!r}; there are {', '.join(CHORES)}.")
    environment = network_environment() if name in _TOWARDS_THE_PROJECT else control_environment()
    if "HUSKIES_CRASH" in os.environ:
        environment["HUSKIES_CRASH"] = os.environ["HUSKIES_CRASH"]
    return {
        "name": name,
        "chore": name,
        "cwd": "/",
        "env": environment,
        "stdin": json.dumps(request),
        "keep_stdin": False,
        "timeout": timeout,
        "main": True,
        "interrupt": None,
        "optional": False,
    }


def read_answer(stdout: bytes) -> dict[str, Any]:
    """The answer in a chore's whole standard output: the result. Raises Refused as the chore did, ValueError
    when the output holds no answer (the chore was killed)."""
    lines = stdout.strip().splitlines()
    answer = json.loads(lines[-1]) if lines else None
    if isinstance(answer, dict) and isinstance(answer.get("result"), dict):
        return dict(answer["result"])
    if isinstance(answer, dict) and isinstance(answer.get("refused"), dict):
        data = dict(answer["refused"])
        raise Refused(str(data.pop("kind")), str(data.pop("message")), **data)
    raise ValueError("The chore's output holds no answer: it did not get to its end.")


def find_chore(name: str) -> Chore:
    """The function of a chore; its module is imported only now, to start quickly."""
    chore: Chore = import_module(f"pipeline.processes.chore_{name}").run
    return chore


def main(arguments: list[str]) -> int:
    """Do the chore that the command line names with the request on stdin; returns the exit code."""
    if len(arguments) != 1 or arguments[0] not in CHORES:
        print(f"Name one chore: {', '.join(CHORES)}.", file=sys.stderr)
        return 64
    try:
        answer = {"result": find_chore(arguments[0])(json.load(sys.stdin))}
    except Refused as refused:
        answer = {"refused": refused.to_json()}
    except HostileName as problem:
        answer = {"refused": {"kind": "hostile_name", "message": str(problem)}}
    except (GitError, RefMoved, OSError) as problem:
        print(f"The chore {arguments[0]} did not get through: {problem}", file=sys.stderr)
        return TROUBLE
    print(json.dumps(answer), flush=True)
    return 0


def as_child(name: str, environment: dict[str, str]) -> NoReturn:
    """The whole life of a process that was forked for a chore, from a program that has one thread: never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        os.closerange(
            3, os.sysconf("SC_OPEN_MAX")
        )  # as an exec would: a lock that is kept here would seem held
        os.environ.clear()
        os.environ.update(environment)
        code = main([name])
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
