"""What the runtimes share whose program is spoken to by a client of ours (`client_loop`): its command and what is said to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .base import Command, Decision, FileOp, Launch

COMMON = ("client_loop", "client_asking", "client_wire")
PERMISSION_SECONDS = (
    24 * 3600.0
)  # the server answers before (HUSKIES_PERMISSION_WAIT); without it the runner ends the session


class Spoken:
    """A program that takes messages and an interrupt while it works, and whose requests for permission are answered."""

    interrupts = True

    def message(self, text: str) -> str | None:
        return json.dumps({"type": "message", "text": text})

    def answer(self, request: Mapping[str, Any], decision: Decision) -> str | None:
        said = {"allow": decision.allow, "scope": decision.scope, "reason": decision.reason}
        return json.dumps({"type": "answer", "id": request.get("id"), **said})


def client_files(*names: str) -> list[Path]:
    """The files that a client needs to read, itself among `names`: modules of this package."""
    return [Path(__file__).with_name(f"{name}.py") for name in (*names, *COMMON)]


def spoken_command(
    argv: list[str],
    env: dict[str, str],
    request: Mapping[str, Any],
    launch: Launch,
    *,
    files: list[FileOp],
    readable: list[Path],
) -> Command:
    """The command of a client; `request` is what its program needs besides what every client's does."""
    common = {
        "prompt": launch.prompt,
        "ask": launch.agent_config.get("permissions") == "ask",
        "permission_seconds": PERMISSION_SECONDS,
    }
    return Command(
        argv,
        env,
        json.dumps(common | dict(request)) + "\n",
        keep_stdin=True,
        interrupt=json.dumps({"type": "interrupt"}) + "\n",
        turn_begins={"type": "turn_start"},
        turn_ends={"type": "turn_end"},
        files=files,
        readable=readable,
    )
