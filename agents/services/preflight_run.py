"""A check as a process of kind `preflight`: its order, its log, its end.

The program gets a scratch copy and private folders as a session does, confined as a session is, with a made-up key for the stand-in, which
runs beside it (preflight_trial) and has it write a file, run a command and say a word. A shell in its place tries to get out.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents import conf as agents_conf
from agents.runtimes import get_runtime
from agents.runtimes.base import Command, Credential, GitIdentity, Launch, LaunchRefused, Runtime
from agents.runtimes.lines import MAIN_STEP
from agents.services import preflight, preflight_judging
from pipeline import conf, kinds, logevents
from pipeline.exceptions import Refused
from pipeline.git.command import control_environment
from pipeline.logevents import NewEvent
from pipeline.models import Process
from pipeline.models.process import ProcessState
from pipeline.processes import confine
from pipeline.processes.logfile import Record
from pipeline.services import processes

TRIAL = Path(__file__).with_name("preflight_trial.py")
LOG_BYTES = 8_000_000
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|DATABASE_URL")


def place(key: str) -> str:
    """The stand-in's address before it has one; the trial puts the true one in its place."""
    return f"127.0.0.1:9/s/{key}"


def command_of(runtime: Runtime, key: str) -> Command:
    """The command of a check, as a session's is built. Raises LaunchRefused."""
    return runtime.command(launch_of(runtime, key, secrets.token_hex(16)))


def launch_of(runtime: Runtime, key: str, token: str) -> Launch:
    trial, own = runtime.trial, preflight.scratch(key)
    if trial is None:
        raise LaunchRefused(f"The runtime {runtime.name} has no program of its own that could be tried.")
    address = f"http://{place(key)}{trial.path}"
    return Launch(
        session_key=key,
        copy=own / "copy",
        home=own / "home",
        tmp=own / "tmp",
        config=own / "config",
        prompt="This is a check of the program itself. Do what you are told.",
        conversation=str(uuid.uuid4()),
        resume=False,
        model=None,
        agent_config={**trial.entry, "base_url": address},
        level=confine.level_available().name,
        credential=Credential("api_key", token, address),
        story_number=0,
        base_branch="main",
        git_identity=GitIdentity("huskies", "preflight@huskies.invalid"),
    )


def turns(word: str, planted: Path, *, shell: bool) -> list[dict[str, Any]]:
    """What the stand-in has the program do; without a shell it tries to write outside by its own tool."""
    write = {"write": {"path": "wrote.txt", "content": f"{word}\n"}}
    outside = {"write": {"path": str(planted), "content": f"{word}\n"}}
    ran = {"run": f"echo {word} > ran.txt"}
    return [write, ran if shell else outside, {"text": f"The check {word} is done."}]


def order_of(process: Process) -> dict[str, Any]:
    """The runner's order. Raises LaunchRefused."""
    runtime, key = get_runtime(process.request["runtime"]), process.key
    own, token, secret = preflight.scratch(key), secrets.token_hex(16), secrets.token_hex(16)
    launch = launch_of(runtime, key, token)
    command = runtime.command(launch)
    canary, planted = own / "canary", own / "planted"
    folders = [launch.copy, launch.home, launch.tmp, launch.config]
    shell = confine.is_confined(launch.level)
    place_of: dict[str, Any] = {
        "level": launch.level,
        "writable": [*folders, *command.writable],
        "readable": list(command.readable),
        "hidden": conf.hidden(),
        "network": True,
        "cwd": launch.copy,
    }
    # The sandbox itself is tried by a shell in the program's place: a program may refuse what names places outside of its folder.
    escape = f"cat '{canary}' > read.txt 2>&1; echo {key} > '{planted}'"
    seconds = agents_conf.PREFLIGHT_SECONDS
    trial = {
        "runtime": runtime.name,
        "word": key,
        "secret": secret,
        "key": token,
        "turns": turns(key, planted, shell=shell),
        "escape": confine.confined(["/bin/sh", "-c", escape], **place_of) if shell else [],
        "argv": confine.confined(command.argv, **place_of),
        "env": command.env,
        "cwd": str(launch.copy),
        "files": command.files,
        "place": place(key),
        "copy": str(launch.copy),
        "canary": str(canary),
        "planted": str(planted),
        "patience": min(20.0, seconds / 2),
        "report": str(own / "report.json"),
    }
    environment = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
    files: list[list[Any]] = [["mkdir", str(folder)] for folder in folders]
    files += [
        ["write", str(canary), secret, 0o600],
        ["write", str(own / "order.json"), json.dumps(trial), 0o600],
    ]
    git = ["git", "init", "-q", str(launch.copy)]
    main = {
        "name": MAIN_STEP,
        "main": True,
        "argv": [sys.executable, "-I", str(TRIAL), str(own / "order.json")],
        "env": environment,
        "stdin": command.stdin,
        "keep_stdin": command.keep_stdin,
        "interrupt": command.interrupt,
        "turn_begins": dict(command.turn_begins),
        "turn_ends": dict(command.turn_ends),
    }
    return {
        "version": 1,
        "key": key,
        "marker": {"HUSKIES_SESSION": key},
        "steps": [
            {"name": "folders", "files": files},
            {"name": "copy", "argv": git, "env": control_environment(), "timeout": 60.0},
            main,
        ],
        "limits": {
            **confine.limits_of("limits"),
            "log_bytes": LOG_BYTES,
            "on_cap": "stop",
            "grace": 2.0,
            "wall": seconds,
        },
    }


class PreflightHandler(kinds.Handler):
    def spec(self, process: Process) -> dict[str, Any]:
        try:
            return order_of(process)
        except LaunchRefused as error:
            raise Refused(str(error)) from error

    def records(self, process: Process, records: Sequence[Record]) -> list[NewEvent]:
        parser = get_runtime(process.request["runtime"]).parser(process.parser_state or None)
        new = [
            NewEvent(e.kind, e.body, kinds.when(record)) for record in records for e in parser.feed(record)
        ]
        process.parser_state = parser.state()
        return new

    def ended(self, process: Process) -> None:
        """Judge the run. A check that another one took the place of, or whose row is gone, says nothing."""
        row = preflight.locked(process.host, process.request["runtime"])
        if row.process_id == process.pk:
            runtime = get_runtime(row.runtime)
            events = [(event.kind, event.body) for event in logevents.since(process.pk)]
            verdict = preflight_judging.judge(
                runtime,
                events,
                runtime.parser(process.parser_state or None).outcome(
                    process.exit if process.state == ProcessState.EXITED else None
                ),
                report_of(process),
                process.exit or {},
                confine.level_available(),
            )
            preflight.conclude(row, verdict, process.request["fingerprint"])
        processes.finish(process)


def report_of(process: Process) -> dict[str, Any]:
    """What the trial wrote down, {} if it did not get to that."""
    try:
        found = json.loads((preflight.scratch(process.key) / "report.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
