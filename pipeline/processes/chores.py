"""Chores: git work that may take long, as a step of a runner, which does it in a fork of itself. Request: JSON on stdin.

The answer is one JSON object, in the file `answer` of the run folder: `{"result": {...}}`, `{"refused": {"kind": ..., "message": ...}}` when
something about the repository stands in the way (both end with code 0), or `{"failed": SENTENCE}` with code 75: trouble of the machine (disk
full, git killed, no answer), and the server tries again. Lines on stdout are progress, for people."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

from pipeline.git.command import GitError, control_environment, network_environment
from pipeline.git.control import RefMoved
from pipeline.git.names import HostileName
from pipeline.git.refusals import Refused
from pipeline.processes.runfolder import ANSWER, write_durably

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


def answered(answer: dict[str, Any]) -> dict[str, Any]:
    """The result in a chore's answer. Raises Refused as the chore did."""
    if "refused" in answer:
        data = dict(answer["refused"])
        raise Refused(str(data.pop("kind")), str(data.pop("message")), **data)
    return dict(answer["result"])


def find_chore(name: str) -> Chore:
    """The function of a chore; its module is imported only now, to start quickly."""
    chore: Chore = import_module(f"pipeline.processes.chore_{name}").run
    return chore


def answer_to(name: str, request: dict[str, Any]) -> dict[str, Any]:
    """Do a chore here and say what came of it."""
    try:
        return {"result": find_chore(name)(request)}
    except Refused as refused:
        return {"refused": refused.to_json()}
    except HostileName as problem:
        return {"refused": {"kind": "hostile_name", "message": str(problem)}}
    except (GitError, RefMoved, OSError) as problem:
        return {"failed": f"The chore {name} did not get through: {problem}"}


def as_child(name: str, environment: dict[str, str]) -> NoReturn:
    """The whole life of a process that a runner, which has one thread, forked for a chore in its run folder. Never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        os.closerange(
            3, os.sysconf("SC_OPEN_MAX")
        )  # as an exec would: a lock that is kept here would seem held
        os.environ.clear()
        os.environ.update(environment)
        folder = os.getcwd()  # noqa: PTH109
        os.chdir("/")
        answer = answer_to(name, json.load(sys.stdin))
        write_durably(folder, ANSWER, json.dumps(answer).encode())
        code = TROUBLE if "failed" in answer else 0
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
