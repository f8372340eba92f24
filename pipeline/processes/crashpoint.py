"""Named instants at which a test kills the program, to prove that the next start heals it.

With `HUSKIES_CRASH=NAME` in the environment the program sends itself SIGKILL when it passes that point, with
`NAME:3` at the third passage. `HUSKIES_CRASH_SIGNAL` names another signal (SIGSTOP: to be late instead of dead).
Without the variable a passage costs one look into the environment."""

import os
import signal

GIT_CRASH_POINTS = (
    "intake-snapshot-done",
    "intake-packed",
    "intake-indexed",
    "intake-ref-made",
    "candidate-made",
    "land-before-swap",
    "land-after-swap",
    "land-checkout-halfway",
)

_passages: dict[str, int] = {}


def crashpoint(name: str) -> None:
    """Die here, by SIGKILL, when the environment names this point."""
    wanted = os.environ.get("HUSKIES_CRASH", "")
    if not wanted:
        return
    target, _, nth = wanted.partition(":")
    if target != name:
        return
    _passages[name] = _passages.get(name, 0) + 1
    if _passages[name] == int(nth or 1):
        os.kill(os.getpid(), signal.Signals[os.environ.get("HUSKIES_CRASH_SIGNAL", "SIGKILL")])
