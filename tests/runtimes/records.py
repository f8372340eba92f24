"""Log records as the runner writes them, and what a parser makes of them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.runtimes.base import Event, Parser

SAMPLES = Path(__file__).with_name("samples")
STDOUT, STDERR, NOTE = 1, 2, 3


@dataclass(frozen=True)
class Record:
    stream: int
    data: bytes
    flags: int = 0


def line(value: Any) -> Record:
    return Record(STDOUT, value if isinstance(value, bytes) else json.dumps(value).encode())


def note(name: str, **fields: Any) -> Record:
    return Record(NOTE, json.dumps({"note": name, **fields}).encode())


def sample(name: str) -> list[Record]:
    """A recording of Claude Code 2.1.330 (in a folder: of another program) against the stand-in."""
    return [line(raw) for raw in (SAMPLES / f"{name}.jsonl").read_bytes().splitlines()]


def fed(parser: Parser, records: Iterable[Record]) -> list[Event]:
    return [event for record in records for event in parser.feed(record)]


def bodies(events: Iterable[Event], kind: str) -> list[dict[str, Any]]:
    return [event.body for event in events if event.kind == kind]


def ended(code: int | None = 0, **more: Any) -> dict[str, Any]:
    """A runner's exit record."""
    return {"outcome": "exited", "step": "agent", "code": code, "signal": None, "main_started": True, **more}
