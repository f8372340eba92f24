"""What is said to Claude Code while it runs: lines of JSON on its stdin (measured with 2.1.330).

A turn begins with `system/init` and ends with `result`; the program lives until its stdin ends, so the runner closes that after a turn
(`Command.turn_ends`). A message that comes in the middle of a turn is taken up after the tool that runs, or is a turn of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .base import Decision

TURN_BEGINS = {"subtype": "init"}
TURN_ENDS = {"type": "result"}


def user_line(text: str) -> str:
    return _line({"type": "user", "message": {"role": "user", "content": text}})


def interrupt_line() -> str:
    """Ends the turn cleanly, with a result."""
    return _line({"type": "control_request", "request_id": "interrupt", "request": {"subtype": "interrupt"}})


def answer_line(request: Mapping[str, Any], decision: Decision) -> str:
    """Without `updatedInput` the call is run as it was asked for. The reason of a denial is the tool's result for the model."""
    answer: dict[str, Any] = {"behavior": "allow"}
    if not decision.allow:
        answer = {
            "behavior": "deny",
            "message": decision.reason or "This was not allowed. Do without it, or do it another way.",
        }
    response = {"subtype": "success", "request_id": str(request["id"]), "response": answer}
    return _line({"type": "control_response", "response": response})


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
