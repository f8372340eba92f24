"""From a runner's exit record to a verdict.

One rule: what the project's own commands did is a verdict; what the machine or the server did is none, and is tried again.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PREPARING_STEPS = ("folders", "copy", "checkout", "copy-ready")
"""Steps of the server's own; when one fails the tree was not judged."""

GATE_STEP = "gate"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`passed`, `failed`, or `again`: the gate could not be run. `reason` is a sentence, empty when it passed."""

    kind: Literal["passed", "failed", "again"]
    reason: str = ""


def judge(ended: Mapping[str, Any] | None, *, lost: bool, timeouts: Mapping[str, float]) -> Judgement:
    """`ended`: the exit record; `timeouts`: seconds by the name of each step of the project's own."""
    ended = ended or {}
    outcome, step = str(ended.get("outcome", "lost")), str(ended.get("step") or "")
    reason = str(ended.get("reason") or "")
    if lost or outcome in ("lost", "not_launched"):
        return Judgement("again", reason or "The process that ran the gate died.")
    what = "The gate" if step == GATE_STEP else f"The {step}"
    if step in PREPARING_STEPS:
        return Judgement("again", reason or f"The gate's copy could not be made: the step {step} failed.")
    if outcome == "timeout":
        limit = timeouts.get(step)
        within = f" within {limit:g} s" if limit else " in time"
        return Judgement("failed", f"{what} did not end{within} and was stopped.")
    if outcome == "spawn_failed":
        # A missing program is the project's matter; no more processes or memory is the machine's.
        kind: Literal["failed", "again"] = "again" if "no new process can be made" in reason else "failed"
        return Judgement(kind, reason or f"{what} could not be started.")
    if outcome in ("exited", "step_failed"):
        return _by_exit(ended, what)
    return Judgement("again", reason or f"The gate's process was ended before its time ({outcome}).")


def _by_exit(ended: Mapping[str, Any], what: str) -> Judgement:
    code, number = ended.get("code"), ended.get("signal")
    if code == 0 and ended.get("outcome") == "exited":
        if ended.get("main_started"):
            return Judgement("passed")
        return Judgement("again", "The gate's process ended well, but the gate itself never began.")
    if number is not None or (isinstance(code, int) and 128 < code < 128 + signal.NSIG):
        killed = int(number if number is not None else (code or 0) - 128)
        return Judgement("failed", f"{what} was killed by {_name(killed)}.")
    if code is None:
        return Judgement("again", str(ended.get("reason") or f"{what} did not run."))
    return Judgement("failed", f"{what} failed with exit code {code}.")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
