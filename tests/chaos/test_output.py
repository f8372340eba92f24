"""Output of any kind, from the agent through runner and supervisor to the events that people read: nothing breaks, memory stays flat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents import conf as agents_conf
from pipeline.logevents import LogEvent
from pipeline.models import Process
from tests import logs
from tests.e2e.shop import Shop, Step, project_file, write

MIB = 1 << 20
RUNNER_MOST = 16 * MIB
SUPERVISOR_MOST = 48 * MIB  # above what this process held before
EVENT_MOST = 64 * 1024  # bytes of one event's body


def of_status(name: str) -> int:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")
    )
    return int(line.split()[1]) * 1024


@contextmanager
def flat() -> Iterator[None]:
    """The supervisor runs in this process: how much it held at its highest, above what it held before."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew (proc(5))
    before = of_status("VmRSS")
    yield
    assert of_status("VmHWM") - before < SUPERVISOR_MOST


def events(shop: Shop, story_session: int, kind: str = "") -> list[LogEvent]:
    found = logs.events(Process.objects.get(sessions=story_session))
    assert [row.seq for row in found] == list(range(1, len(found) + 1))
    assert max(len(json.dumps(row.body)) for row in found) < EVENT_MOST
    return [row for row in found if kind in ("", row.kind)]


@pytest.mark.on_sqlite
@pytest.mark.parametrize(
    "size",
    [64 * MIB, pytest.param(1024 * MIB, marks=[pytest.mark.long, pytest.mark.timeout(900)])],
    ids=["64 MiB", "1 GiB"],
)
def test_a_huge_line_is_cut_for_people_and_the_work_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(agents_conf, "AGENT_LOG_BYTES", 2 * size)
    project = shop.open(output_limit=2 * size)
    with flat():
        story = shop.start(project, [{"huge_line": size}, write("a.txt")])
        shop.server.until(
            lambda: shop.fresh(story).stage == "done", what="a story that is done", seconds=60 + size / MIB
        )
    (session,) = shop.sessions(story)
    said = [event for event in events(shop, session.pk) if "cut" in event.body]
    assert len(said) == 1
    body = said[0].body
    assert len(body["text"].encode()) + body["cut"] == len(
        '{"kind": "text", "body": {"text": "'
    ) + size + len('"}}')
    ended = shop.exit_of(shop.process(session))
    assert ended["max_rss_kb"] * 1024 < RUNNER_MOST and ended["dropped"] == 0
    shop.settled()


@pytest.mark.on_sqlite
@pytest.mark.parametrize("line", [0, 80], ids=["without a newline", "in lines"])
def test_endless_output_ends_at_the_cap(shop: Shop, monkeypatch: pytest.MonkeyPatch, line: int) -> None:
    cap = 2_000_000
    monkeypatch.setattr(agents_conf, "AGENT_LOG_BYTES", cap)
    monkeypatch.setattr(agents_conf, "CRASH_CAP", 1)
    project = shop.open()
    endless = {"print_bytes": {"n": 1 << 33, **({"line": line} if line else {})}}
    with flat():
        story = shop.until_stage(shop.start(project, [write("a.txt"), endless]), "blocked")
    (session,) = shop.sessions(story)
    assert session.outcome == "output_limit" and "output limit" in story.reason
    ended = shop.exit_of(shop.process(session))
    assert ended["log_size"] < cap + 200_000 and ended["max_rss_kb"] * 1024 < RUNNER_MOST
    assert session.saved, "its work is kept all the same"
    assert events(shop, session.pk)
    shop.settled()


def test_bytes_that_are_no_text_are_shown_and_stored(shop: Shop) -> None:
    hostile = '{"kind": "text", "body": {"text": "a\\u0000b \\ud800 \\u202e <script>alert(1)</script> \\u001b[31m"}}'
    deep = "[" * 50_000
    turn: list[Step] = [
        {"bad_bytes": True},
        {"print": hostile},
        {"print": deep},
        {"print": "{not json"},
        {"print": '"x"'},
        write("a.txt"),
    ]
    project = shop.open()
    story = shop.until_stage(shop.start(project, turn), "done")
    (session,) = shop.sessions(story)
    found = events(shop, session.pk)
    texts = json.dumps([event.body for event in found])
    assert "\\u0000" not in texts, "PostgreSQL stores no NUL"
    assert "not UTF-8" in texts and "on stderr" in texts and "<script>" in texts and "{not json" in texts
    assert (session.outcome, story.retries) == ("done", 0)
    shop.settled()


def test_each_of_many_lines_is_stored_once_and_in_order(shop: Shop) -> None:
    lines = [f"{number:05d}" for number in range(3000)]
    project = shop.open()
    story = shop.until_stage(
        shop.start(project, [{"print": "\n".join(lines)}, {"run": "true"}, write("a.txt")]), "done"
    )
    (session,) = shop.sessions(story)
    assert [event.body["text"] for event in events(shop, session.pk, "output")] == lines
    shop.settled()


@pytest.mark.on_sqlite
def test_a_gate_that_prints_without_end_keeps_its_head_and_its_tail(shop: Shop) -> None:
    check = "echo the first line; head -c 3000000 /dev/zero | tr '\\0' 'x' | fold -w 100; echo; echo the last line; exit 1\n"
    file = project_file(max_retries=1).replace("check.sh\n", "check.sh\n  output_limit: 1000000\n")
    project = shop.open(files={"check.sh": check, ".huskies/project.yaml": file})
    with flat():
        story = shop.until_stage(shop.start(project, [write("a.txt")]), "blocked")
    run = story.gate_runs.order_by("pk")[0]
    assert run.verdict == "failed" and "the last line" in run.output
    process = Process.objects.get(pk=run.process_id or 0)
    ended = shop.exit_of(process)
    assert ended["dropped"] > 0 and ended["max_rss_kb"] * 1024 < RUNNER_MOST
    assert "the first line" in json.dumps([event.body for event in logs.events(process)[:40]])
    shop.settled()
