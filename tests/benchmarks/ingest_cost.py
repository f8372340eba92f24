"""What it costs the supervisor to take one agent's output in, against a bare parse of the same lines (P4): processor time, not the clock's.

The lines are Claude Code's, 890 bytes in the mean: text, tool calls and their results. The subject is the supervisor's own turn over a runner's
log: records, redaction with two known keys, parsing, rows and offset in one transaction, the nudge. The floor splits the same bytes into lines and
parses each with orjson. Both run in this process.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from django.core.management import call_command
from django.utils import timezone

from agents.models import Credential, Session
from agents.sealing import seal
from pipeline import conf, datafolder
from pipeline.following import Followed
from pipeline.models import LogPart, Process
from pipeline.processes.records import CONTINUED, HEAD, MAX_DATA, STDOUT, VERSION
from pipeline.supervisor import Supervisor
from tests import factories
from tests.benchmarks.measure import Row, percentile

LINES = 4000
GOAL = 0.2
WORDS = (
    "fix test board claim worktree merge queue agent retry lease socket gate story branch commit diff".split()
)
KEY = "sk-ant-api03-" + "AbCdEfGhIjKl0123456789_-" * 4


def line(draw: random.Random, number: int) -> bytes:
    def words(count: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(count))

    kind = draw.random()
    head: dict[str, Any] = {"session_id": "s" * 36, "uuid": f"{number:032x}"}
    if kind < 0.5:
        message = {
            "id": f"msg_{number}",
            "role": "assistant",
            "model": "claude-opus-5-5",
            "content": [{"type": "text", "text": words(40)}],
        }
        usage = {"input_tokens": 1234, "output_tokens": 56, "cache_read_input_tokens": 99_999}
        return dumped({"type": "assistant", **head, "message": {**message, "usage": usage}})
    if kind < 0.8:
        call = {
            "type": "tool_use",
            "id": f"toolu_{number}",
            "name": "Bash",
            "input": {"command": words(15), "description": words(6)},
        }
        return dumped({"type": "assistant", **head, "message": {"content": [call]}})
    result = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": words(400)}
    return dumped({"type": "user", **head, "message": {"role": "user", "content": [result]}})


def dumped(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


def plain(draw: random.Random, number: int) -> bytes:
    return (f"{number:08d} " + " ".join(draw.choice(WORDS) for _ in range(160)))[:890].encode()


KINDS: dict[str, Callable[[random.Random, int], bytes]] = {
    "Claude Code's lines": line,
    "lines that are no JSON": plain,
}


class Intake:
    """One session whose log holds the lines, cut into records if they are long; `take` stores them all, from nothing."""

    def __init__(self, made: list[bytes], *, cut: bool = False) -> None:
        self.made = made
        self.blob = b"\n".join(made) + b"\n"
        project = factories.project(f"ingest-{Process.objects.count()}")
        agent = factories.coder(project, model="claude-opus-5-5")
        story = factories.story(project)
        credential = Credential.objects.create(name=project.name, sealed=seal(KEY))
        key = conf.new_key()
        self.process = Process.objects.create(
            key=key, kind="agent", host=conf.host(), project=project, story=story, state="running"
        )
        Session.objects.create(
            story=story, project=project, agent=agent, role="coder", runtime="claude-code", model=agent.model, key=key, fence=1,
            host=conf.host(), process=self.process, state="running", started_at=timezone.now(), conversation="c", credential=credential,
        )  # fmt: skip
        self.folder = Path(conf.runs()) / key
        self.folder.mkdir(parents=True)
        now, mono = time.time_ns(), time.monotonic_ns()
        pieces = [piece for one in made for piece in in_pieces(one)] if cut else [(0, one) for one in made]
        records = [
            HEAD.pack(VERSION, STDOUT, flags, 0, mono + n, now + n * 1000, len(one)) + one
            for n, (flags, one) in enumerate(pieces)
        ]
        (self.folder / "log").write_bytes(b"".join(records))

    def take(self) -> float:
        """Seconds of processor time until all of it is stored."""
        LogPart.objects.filter(process=self.process).delete()
        Session.objects.get(process=self.process).ledger.all().delete()
        Process.objects.filter(pk=self.process.pk).update(offset=0, last_seq=0, parser_state={})
        self.process.refresh_from_db()
        supervisor = Supervisor()
        supervisor.followed[self.process.pk] = followed = Followed(self.process, self.folder)
        size = (self.folder / "log").stat().st_size
        before = time.process_time()
        while followed.process.offset < size:
            supervisor.follow()
        return time.process_time() - before

    def floor(self) -> float:
        before = time.process_time()
        for one in self.blob.split(b"\n"):
            if one:
                try:
                    orjson.loads(one)
                except ValueError:
                    pass
        return time.process_time() - before


def in_pieces(line: bytes) -> list[tuple[int, bytes]]:
    """(flags, bytes) of each record of a line."""
    parts = [line[at : at + MAX_DATA] for at in range(0, len(line), MAX_DATA)]
    return [*((CONTINUED, part) for part in parts[:-1]), (0, parts[-1])]


def measure(rounds: int) -> list[Row]:
    datafolder.prepare(conf.home())
    call_command("migrate", verbosity=0)
    rows = []
    for name, make in KINDS.items():
        draw = random.Random(3)
        intake = Intake([make(draw, number) for number in range(LINES)])
        pairs = []
        for number in range(max(3, rounds // 3) + 1):
            took, floor = intake.take(), intake.floor()
            if number:
                pairs.append((took, floor))
        rows.append(_row(name, intake, pairs))
    return rows


def _row(name: str, intake: Intake, pairs: list[tuple[float, float]]) -> Row:
    ratios = [floor / took for took, floor in pairs]
    reached, megabytes = percentile(ratios, 50), len(intake.blob) / 1e6
    took = percentile([one for one, _ in pairs], 50)
    said = f"{reached:.3f} of a bare orjson parse ({percentile(ratios, 5):.3f} to {percentile(ratios, 95):.3f}); "
    said += f"{megabytes / took:.1f} MB/s of processor time, {took / LINES * 1e6:.0f} us a line"
    what = f"an agent's output, split to published: {name}"
    if make_has_goal(name):
        return Row("ingest_cost", what, said, f">= {GOAL}", "met" if reached >= GOAL else "missed")
    return Row("ingest_cost", what, said)


def make_has_goal(name: str) -> bool:
    """Of lines that orjson refuses at once there is no bare parse."""
    return KINDS[name] is line
