"""`up --drain`: finishes what runs, takes nothing new, and ends by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.shop import CHECK, GO, project_file, script, write
from tests.factories import repository
from tests.stack.server import Up, command, wait_until_none

Start = Callable[..., Up]
WAIT = {"wait_for": {"file": GO, "timeout": 300}}


def until(reached: Callable[[], bool], seconds: float = 120) -> None:
    """Each look is a command of its own, so there is nothing to pace."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end


def said(home: Path, *words: str) -> Any:
    done = command(home, *words, "--json", HUSKIES_UNCONFINED="1")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_up_drain_sees_its_work_through_takes_nothing_new_and_ends(
    start: Start, home: Path, tmp_path: Path
) -> None:
    files = {".huskies/project.yaml": project_file(2), "check.sh": CHECK, "README.md": "hello\n"}
    repo = repository(tmp_path / "shop", files)
    up = start(HUSKIES_UNCONFINED="1").ready()
    said(home, "project", "add", str(repo), "--approve")
    said(
        home,
        "story",
        "create",
        "First",
        "--description",
        script([write("a.txt"), {"say": "half"}, WAIT, write("b.txt")]),
    )
    said(home, "story", "start", "1")
    until(lambda: said(home, "session", "list")[0]["state"] == "running")
    assert up.stop() == 0

    draining = start("--drain", HUSKIES_UNCONFINED="1").ready()
    draining.wait_for("is draining: it finishes what runs and starts nothing new")
    said(home, "story", "create", "Second", "--description", script([write("c.txt")]))
    said(home, "story", "start", "2")
    waiting = said(home, "story", "show", "2")
    assert (waiting["stage"], "is draining" in waiting["waiting_for"]) == ("coding", True)
    copy = next(path for path in (home / "copies").iterdir() if (path / "a.txt").exists())
    (copy / GO).touch()
    draining.wait_for("Nothing runs on this host any more")
    assert draining.child.wait(timeout=40) == 0
    assert (
        said(home, "story", "show", "1")["stage"] in ("merge", "done")
        and said(home, "story", "show", "2")["stage"] == "coding"
    )
    assert [session["outcome"] for session in said(home, "session", "list")] == ["done"]
    assert wait_until_none(home) == []

    # The next plain `up` takes work again.
    again = start(HUSKIES_UNCONFINED="1").ready()
    until(lambda: said(home, "story", "show", "2")["stage"] == "done")
    assert again.stop() == 0
