"""followed.py with the programs that know a conversation by its folder: Qwen Code and opencode, stood in for by a shell."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from agents.runtimes.open_models import FOLLOWER


def played(
    kind: str, home: Path, copy: Path, script: str, patience: float = 60
) -> tuple[int, list[Any], str]:
    words = [sys.executable, "-I", "-S", str(FOLLOWER), kind, "m-1", str(patience), "/bin/sh", "-c", script]
    env = {"QWEN_HOME": str(home), "XDG_DATA_HOME": str(home), "PATH": os.environ["PATH"], "H": str(home)}
    done = subprocess.run(
        [*words, "sh"], env=env, cwd=copy, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    lines = [json.loads(one) for one in done.stdout.splitlines() if one.startswith(b"{")]
    return done.returncode, lines, done.stderr.decode()


def told(event: str, **fields: Any) -> str:
    payload = {"uiEvent": {"event.name": f"qwen-code.{event}", **fields}}
    return json.dumps({"cwd": "/old", "subtype": "ui_telemetry", "systemPayload": payload})


def folders(tmp_path: Path, *inside: str) -> tuple[Path, Path]:
    home, copy = tmp_path / "home", tmp_path / "copy"
    for one in (home, copy, *(home / name for name in inside)):
        one.mkdir(parents=True, exist_ok=True)
    return home, copy


def test_qwens_requests_and_refusals_are_told_and_it_is_not_waited_for_without_end(tmp_path: Path) -> None:
    home, copy = folders(tmp_path, "projects/a/chats")
    answer = told("api_response", response_id="r1", model="m-2", input_token_count=7)
    refusal = told("api_error", status_code=429, error_message="slow down")
    script = f"printf '%s\\n' '{answer}' '{refusal}' >> $H/projects/a/chats/1.jsonl; exec sleep 50"
    code, lines, _ = played("qwen", home, copy, script, patience=0.3)
    assert code == 1
    assert lines[1:] == [
        {"type": "huskies.usage", "request": "r1", "model": "m-2", "usage": {"input_token_count": 7}},
        {"type": "huskies.retry", "status": 429, "error": "slow down"},
        {"type": "huskies.gave_up", "seconds": 0.3},
    ]


def test_qwens_conversation_is_moved_to_the_new_copy_and_is_no_news(tmp_path: Path) -> None:
    home, copy = folders(tmp_path, "projects/a/chats")
    record = home / "projects/a/chats/1.jsonl"
    record.write_text(told("api_response", response_id="old") + "\n")
    new = told("api_response", response_id="new")
    code, lines, _ = played("qwen", home, copy, f"printf '%s\\n' '{new}' >> {record}")
    assert (code, [line.get("request") for line in lines]) == (0, [None, "new"])
    assert json.loads(record.read_text().splitlines()[0])["cwd"] == str(copy)


def database(home: Path, *sessions: tuple[str, int]) -> Path:
    place = home / "opencode" / "opencode.db"
    with closing(sqlite3.connect(place)) as made, made:
        made.execute("CREATE TABLE session (id, parent_id, directory, time_created)")
        made.execute("CREATE TABLE project (worktree, sandboxes)")
        made.executemany("INSERT INTO session VALUES (?, NULL, '/old', ?)", sessions)
    return place


def test_opencodes_newest_conversation_is_moved_to_the_new_copy_and_named(tmp_path: Path) -> None:
    home, copy = folders(tmp_path, "opencode")
    place = database(home, ("ses_1", 1), ("ses_2", 2))
    code, lines, _ = played("opencode", home, copy, 'printf \'{"type":"%s"}\\n\' "$1"')
    assert (code, lines[1]) == (0, {"type": "--session=ses_2"})
    with closing(sqlite3.connect(place)) as read:
        assert read.execute("SELECT DISTINCT directory FROM session").fetchall() == [(str(copy),)]


def test_an_opencode_that_is_silent_after_a_refusal_is_ended_and_one_that_goes_on_is_not(
    tmp_path: Path,
) -> None:
    home, copy = folders(tmp_path, "opencode/log")
    refuse = """echo 'level=ERROR message="stream error" error.error="slow down"' >> $H/opencode/log/a.log"""
    code, lines, _ = played("opencode", home, copy, f"{refuse}; exec sleep 50", patience=0.3)
    assert (code, [line["type"] for line in lines[1:]]) == (1, ["huskies.retry", "huskies.gave_up"])
    assert lines[1]["error"] == "slow down"
    go_on = f"{refuse}; sleep 0.3; echo on; sleep 1.5"
    assert played("opencode", home, copy, go_on, patience=1)[0] == 0


def test_opencode_does_not_begin_with_plugins_of_the_repository_or_without_its_conversation(
    tmp_path: Path,
) -> None:
    home, copy = folders(tmp_path, "opencode")
    database(home)
    code, _, said = played("opencode", home, copy, "touch began")
    assert code == 1 and "The conversation to go on with is not there" in said
    (home / "opencode" / "opencode.db").write_bytes(
        b"no database at all, but long enough to look like one" * 99
    )
    assert "The conversation to go on with is not there" in played("opencode", home, copy, "touch began")[2]
    (copy / ".opencode" / "plugin").mkdir(parents=True)
    code, _, said = played("opencode", home, copy, "touch began")
    assert code == 1 and "The repository brings plugins of opencode along in .opencode/plugin" in said
    assert not (copy / "began").exists()
