"""The `scripted` runtime: a stand-in that plays a script, for the demo, tests and fault injection.

The script is the agent's `script:` in the project file, or a fenced block named `script` in the story's
text. It is a list of steps (every turn plays it), or a mapping with `turns`, a list of such lists: the n-th
turn of a conversation plays the n-th list, and the last one again when there are no more. `resume` names
the steps of every later turn that has no list of its own. A step is a mapping with one key, see `STEPS`.
"""

from __future__ import annotations

import json
import re
import signal
import stat
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from pipeline.processes.confine import allowed_environment

from .base import Command, Decision, Event, FileOp, Found, Launch, LaunchRefused, Outcome, OutcomeKind, Redact
from .bounds import asked, bounded, clip, clipped, copied, line_of, mapping, number, text
from .ledger import COUNTS, Ledger
from .lines import LineParser

PROGRAM = Path(__file__).with_name("scripted_agent.py")
LABEL = "a scripted stand-in, not an AI"
MODEL = "scripted"
MOST_SCRIPT = 64 * 1024  # bytes
OUTCOMES: tuple[str, ...] = get_args(OutcomeKind)
_BLOCK = re.compile(r"^(?P<fence>`{3,}|~{3,})script[ \t]*\r?\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S)


class ScriptError(LaunchRefused):
    """The script is not of the form that is described at the head of this file."""


# ---------------------------------------------------------------- the form of a script


def _text(value: object) -> bool:
    return isinstance(value, str)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _anything(_value: object) -> bool:
    return True


def _keys(
    needed: Mapping[str, Callable[[object], bool]], **more: Callable[[object], bool]
) -> Callable[[object], bool]:
    known = {**needed, **more}

    def fits(value: object) -> bool:
        return (
            isinstance(value, dict)
            and set(needed) <= set(value)
            and all(key in known and known[key](one) for key, one in value.items())
        )

    return fits


_FILE = _keys({"path": _text, "content": _text})
STEPS: dict[str, Callable[[object], bool]] = {
    "say": _text,
    "think": _text,
    "ask": _text,
    "request": _keys({"tool": _text}, input=_anything, seconds=_seconds),
    "write": _FILE,
    "append": _FILE,
    "read": _text,
    "run": _text,
    "commit": _text,
    "usage": _keys({}, model=_text, **dict.fromkeys(COUNTS, _count)),
    "wait_for": _keys({"file": _text}, timeout=_seconds),
    "sleep": _seconds,
    "hang": _anything,
    "open_tool": _text,
    "close_tool": _anything,
    "limit": _keys({"status": _text}, resets_at=_count),
    "hold_memory": _count,
    "wait_told": _seconds,
    "print": _text,
    "print_bytes": _keys({"n": _count}, char=_text, line=_count, stream=_text),
    "huge_line": _count,
    "bad_bytes": _anything,
    "ignore_term": _anything,
    "daemon": _anything,
    "fork": _count,
    "hold_stdout": _anything,
    "end": _keys({"outcome": lambda value: value in OUTCOMES}, text=_text, until=_count),
    "exit": lambda value: _count(value) and int(str(value)) < 256,
    "crash": lambda value: _signal(value) is not None,
}


def parse_script(source: object) -> list[list[dict[str, Any]]]:
    """The turns of a script given as YAML or JSON text, a list or a mapping; raises `ScriptError`."""
    if isinstance(source, str):
        if len(source) > MOST_SCRIPT:
            raise ScriptError(f"The script is longer than {MOST_SCRIPT} characters. Shorten it.")
        try:
            source = yaml.safe_load(source)
        except (yaml.YAMLError, ValueError, RecursionError) as problem:
            raise ScriptError(f"The script is not YAML: {line_of(str(problem))}. Correct it.") from None
    if isinstance(source, list):
        source = {"turns": [source]}
    if not isinstance(source, dict) or not set(source) <= {"turns", "resume"} or "turns" not in source:
        raise ScriptError("A script is a list of steps, or a mapping with `turns` and, if wanted, `resume`.")
    turns = source["turns"]
    if not isinstance(turns, list) or not turns:
        raise ScriptError("A script's `turns` is a list with at least one list of steps.")
    if "resume" in source:
        turns = [*turns, source["resume"]]
    return [_parse_turn(turn, place) for place, turn in enumerate(turns, 1)]


def _parse_turn(turn: object, place: int) -> list[dict[str, Any]]:
    if not isinstance(turn, list):
        raise ScriptError(f"Turn {place} of the script is not a list of steps.")
    steps: list[dict[str, Any]] = []
    for at, step in enumerate(turn, 1):
        where = f"Step {at} of turn {place} of the script"
        if isinstance(step, str):
            step = {step: True}  # `- hang` for `- hang: true`
        if not isinstance(step, dict) or len(step) != 1:
            raise ScriptError(f"{where} is not a mapping with one key.")
        name, value = next(iter(step.items()))
        fits = STEPS.get(str(name))
        if fits is None:
            raise ScriptError(f"{where} is {str(name)[:50]!r}; a step is one of {', '.join(sorted(STEPS))}.")
        if not fits(value):
            raise ScriptError(f"{where}: {name} cannot be {str(value)[:100]!r}.")
        if name == "crash":
            value = _signal(value)
        steps.append({str(name): value})
    return steps


def _signal(value: object) -> int | None:
    try:
        return int(signal.Signals[value] if isinstance(value, str) else signal.Signals(int(str(value))))
    except (KeyError, ValueError):
        return None


def find_script(story_text: str) -> str | None:
    """The first fenced block named `script` in a story's text."""
    found = _BLOCK.search(story_text)
    return found["body"] if found else None


# ---------------------------------------------------------------- the runtime


class Scripted:
    name = "scripted"
    label = LABEL
    keys: tuple[str, ...] = ("script",)
    provider = ""
    tested = ""
    trial = None

    def command(self, launch: Launch) -> Command:
        """The stand-in's command line; raises `ScriptError` for a script that it cannot play."""
        script = launch.agent_config.get("script") or find_script(launch.story_text or launch.prompt)
        if script is None:
            raise ScriptError(
                "The scripted agent has no script: give its entry in the project file a `script`, "
                "or the story's description a fenced block that begins with ```script."
            )
        request = {"turns": parse_script(script), "memory": str(_memory(launch.config, launch.conversation))}
        env = allowed_environment(launch.home, launch.tmp, launch.git_environment())
        argv = [sys.executable, "-I", "-S", str(PROGRAM)]
        return Command(argv, env, json.dumps(request) + "\n", keep_stdin=True, readable=[PROGRAM])

    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        source, target = (_memory(folder, launch.conversation) for folder in (previous, launch.config))
        try:
            seen = source.lstat()
        except OSError:
            return []
        # An agent could have put a link to a secret in its place.
        if (
            not stat.S_ISREG(seen.st_mode)
            or seen.st_nlink != 1
            or source.parent.is_symlink()
            or seen.st_size > 1000
        ):
            return []
        return [["mkdir", str(target.parent)], ["copy", str(source), str(target)]]

    def message(self, text: str) -> str | None:
        return json.dumps({"message": text})

    def answer(self, request: Mapping[str, Any], decision: Decision) -> str | None:
        return json.dumps({"answer": request["id"], "allow": decision.allow, "reason": decision.reason})

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> ScriptedParser:
        return ScriptedParser(state, redact)

    def program(self) -> Path | None:
        return PROGRAM

    def find(self) -> Found:
        return Found(PROGRAM, "1", None, "")


def _memory(config: Path, conversation: str) -> Path:
    try:
        return config / "scripted" / f"{uuid.UUID(conversation)}.json"
    except ValueError:
        raise LaunchRefused(f"{conversation!r} is not a conversation: it must be a UUID.") from None


class ScriptedParser(LineParser):
    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        super().__init__(state, redact)
        known = copied(state)
        self._ledger = Ledger(mapping(known.get("ledger")))
        self._ended: dict[str, Any] = mapping(known.get("ended"))

    def state(self) -> dict[str, Any]:
        return super().state() | copied({"ledger": self._ledger.state(), "ended": self._ended})

    def _message(self, message: dict[str, Any]) -> list[Event]:
        kind, body = text(message.get("kind")), mapping(message.get("body"))
        whole = clipped(text(body.get("text")))
        rest = {key: bounded(value) for key, value in body.items() if key != "text"}
        if kind == "started":
            self._started = True
            return [Event("started", {"model": MODEL, **bounded(body)})]
        if kind == "text":
            return [Event("text", whole)]
        if kind == "thinking":
            return [Event("thinking", whole)]
        if kind == "tool_start":
            return [Event("tool_start", {**rest, **whole})]
        if kind == "tool_end":
            return [Event("tool_end", {**rest, **whole})]
        if kind == "rate_limit":
            return [Event("rate_limit", {**{"limit": "", "resets_at": None, "utilization": None}, **rest})]
        if kind == "permission":
            return [Event("permission", {**rest, **whole, "input": asked(mapping(body.get("input")))})]
        if kind == "permission_over":
            return [Event("permission_over", rest)]
        if kind == "usage":
            counts = {name: number(body.get(name)) for name in COUNTS}
            return self._ledger.start("", text(body.get("request")), text(body.get("model")) or MODEL, counts)
        if kind == "ended":
            self._ended = bounded(body)
            return [Event("ended", {**rest, **whole, "error": body.get("outcome") != "done"})]
        return [Event("note", {"note": clip(kind, 100)[0] or "untyped", **bounded(body)})]

    def _judged(self) -> Outcome | Literal["success"] | None:
        kind = self._ended.get("outcome")
        if kind == "done":
            return "success"
        for known in get_args(OutcomeKind):
            if known == kind:
                said = text(self._ended.get("text")) or "as its script says"
                return Outcome(
                    known, f"The scripted agent ended: {said}", number(self._ended.get("until")) or None
                )
        return None
