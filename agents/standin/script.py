"""Scripts of the stand-in.

A script is a list of turns, a scenario, or `{"scenarios": {name: scenario}}`. A turn is a text or a mapping;
each request of the model uses up one (`repeat` of them if given). Its keys:

    text, thinking            what the model says, `chunk_size` characters at a time
    run: COMMAND              it calls the client's shell
    write: {path, content}    it calls the client's tool that writes files
    tool: NAME, input: {...}  it calls exactly that tool
    calls: [...]              several of these calls in one answer
    usage: {input, output, cache_read, cache_write, thinking}
    stop                      another stop reason
    error: STATUS or {status, message, type, code, body, headers, retry_after}
    stream_error: {...}, malformed: true, drop: true     what goes wrong after the text
    hang: SECONDS             nothing is answered for so long, then the connection closes
    headers                   of the answer, such as the counters of a limit
    match: REGEX              this turn waits for a request whose newest message fits
"""

import copy
import re
from dataclasses import dataclass, field
from typing import Any

Turn = dict[str, Any]
Spec = dict[str, Any]

CALL_KEYS = {"run", "write", "tool", "input"}
TURN_KEYS = CALL_KEYS | {
    "text",
    "thinking",
    "calls",
    "error",
    "stream_error",
    "malformed",
    "drop",
    "hang",
    "usage",
    "stop",
    "headers",
    "repeat",
    "match",
}
SCENARIO_KEYS = {"turns", "on_end", "api_key", "headers", "usage", "chunk_size"}


class ScriptError(ValueError):
    """The script is not of the documented form, or a turn cannot be played for this client."""


def load_script(source: object) -> dict[str, Spec]:
    """Scenarios by name."""
    if isinstance(source, list):
        source = {"turns": source}
    if not isinstance(source, dict):
        raise ScriptError("a script is a list of turns, a scenario, or {'scenarios': {...}}")
    scenarios = source["scenarios"] if "scenarios" in source else {"default": source}
    return {name: check_scenario(name, body) for name, body in scenarios.items()}


def check_scenario(name: str, body: object) -> Spec:
    if isinstance(body, list):
        body = {"turns": body}
    if not isinstance(body, dict):
        raise ScriptError(f"scenario {name!r} is not a mapping or a list of turns")
    if unknown := set(body) - SCENARIO_KEYS:
        raise ScriptError(f"scenario {name!r}: unknown keys {sorted(unknown)}")
    spec: Spec = {"turns": [], "on_end": "text", **copy.deepcopy(body)}
    if spec["on_end"] not in ("text", "repeat", "error"):
        raise ScriptError(f"scenario {name!r}: on_end is 'text', 'repeat' or 'error'")
    turns: list[Turn] = []
    for place, given in enumerate(spec["turns"]):
        turn = {"text": given} if isinstance(given, str) else given
        if not isinstance(turn, dict) or set(turn) - TURN_KEYS:
            raise ScriptError(f"scenario {name!r}, turn {place}: not a text or a mapping of known keys")
        if any(set(call) - CALL_KEYS for call in turn.get("calls", [])):
            raise ScriptError(f"scenario {name!r}, turn {place}: unknown keys of a call")
        turns.extend([turn] * int(turn.get("repeat", 1)))
    return spec | {"turns": turns}


@dataclass
class Scenario:
    """A scenario as it is being played: which turns are left."""

    name: str
    spec: Spec
    left: list[Turn] = field(default_factory=list)
    played: int = 0

    def __post_init__(self) -> None:
        self.left = list(self.spec["turns"])

    def take(self, newest: str) -> Turn:
        """The next turn for a request whose newest message is `newest`."""
        self.played += 1
        for place, turn in enumerate(self.left):
            wanted = turn.get("match")
            if wanted is None or re.search(wanted, newest, re.S):
                return self.left.pop(place)
        if self.spec["on_end"] == "repeat" and self.spec["turns"]:
            last: Turn = self.spec["turns"][-1]
            return last
        if self.spec["on_end"] == "error":
            return {"error": {"status": 400, "message": "stand-in: the script has ended"}}
        return {"text": "(the script has ended)"}
