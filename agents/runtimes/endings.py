"""How a program's end is judged where the program itself said nothing of it.

The exit code alone decides nothing: programs exit 0 after an interrupt and after refused tool calls.
Success is a success result *and* exit code 0.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from .base import Outcome
from .bounds import clip

# 128 + n: how a shell and bubblewrap report a program that signal n ended.
SHELL_SIGNALS = 128
TELLING = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGKILL,
    signal.SIGTERM,
    signal.SIGSEGV,
    signal.SIGABRT,
    signal.SIGBUS,
)


def without_result(
    exit: Mapping[str, Any] | None, *, started: bool, stderr: str = "", said_success: bool = False
) -> Outcome:
    """The outcome by the runner's exit record (None: the runner is gone without one).

    `started`: the program printed its first event. `said_success`: it printed a success result.
    """
    if exit is None:
        return Outcome(
            "lost",
            "The program's runner ended without leaving an exit record (killed, or the machine went down). "
            "The work so far is kept and a new session goes on with the conversation.",
        )
    how = exit.get("outcome")
    if how == "stopped":
        return Outcome("stopped", "The session was stopped.")
    if how == "lease":
        return Outcome(
            "lost", "No server renewed the session's lease, so its runner ended it. A new session goes on."
        )
    if how == "silent":
        return Outcome(
            "hung", "The program printed nothing for longer than its inactivity limit and was ended."
        )
    if how == "timeout":
        return Outcome(
            "wall_limit", "The program ran longer than its time limit (max_session_time) and was ended."
        )
    if how == "output_limit":
        return Outcome("output_limit", "The program printed more than its output limit and was ended.")
    if how == "helper_lost":
        return Outcome(
            "lost",
            "What stands between the program and its provider (the session's sidecar) ended: "
            f"{clip(str(exit.get('reason') or '?'), 300)[0]} The work so far is kept and a new session goes on.",
        )
    if how == "spawn_failed":
        return Outcome(
            "config",
            f"The program could not be started.{_said(stderr)} Check that it is installed.",
            detail="program",
        )
    if how == "step_failed" and not exit.get("main_started", False):
        step = clip(str(exit.get("step") or "?"), 100)[0]
        return Outcome(
            "config", f"The step {step!r} before the program failed, so it was not started.", detail="step"
        )
    return _by_code(exit, started, stderr, said_success)


def _by_code(exit: Mapping[str, Any], started: bool, stderr: str, said_success: bool) -> Outcome:
    code, by_signal = exit.get("code"), signal_of(exit)
    if said_success and code == 0 and by_signal is None:
        return Outcome("done", "The agent finished its turn.")
    end = f"by signal {by_signal.name}" if by_signal is not None else f"with exit code {code}"
    if said_success:
        return Outcome("crashed", f"The program reported success but ended {end}.")
    if by_signal is None and not started:
        return Outcome(
            "config",
            f"The program ended {end} before its first event.{_said(stderr)} "
            "Check its version and the agent's settings.",
            detail="program",
        )
    return Outcome("crashed", f"The program ended {end} without a result.{_said(stderr)}")


def signal_of(exit: Mapping[str, Any]) -> signal.Signals | None:
    """The signal that ended the program, also where bubblewrap or a shell reports it as 128 + n."""
    code = exit.get("code")
    value = exit.get("signal")
    if not value and isinstance(code, int) and code - SHELL_SIGNALS in TELLING:
        value = code - SHELL_SIGNALS
    try:
        return signal.Signals(abs(value)) if isinstance(value, int) and value else None
    except ValueError:  # a number that this system has no name for
        return None


def _said(stderr: str) -> str:
    last = [line for line in stderr.strip().splitlines() if line.strip()][-3:]
    return f" It said: {clip(' / '.join(last), 600)[0]}" if last else ""
