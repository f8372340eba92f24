"""followed.py: a program's output is passed on whole, with what stands in its record; it ends as the program does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.runtimes.gemini_cli import FOLLOWER

RECORD = ".gemini/tmp/story/chats/session-1.jsonl"


def usage(number: int) -> str:
    return json.dumps({"type": "gemini", "id": f"r{number}", "model": "m-1", "tokens": {"input": number}})


def start(home: Path, script: str, patience: float = 60) -> subprocess.Popen[bytes]:
    (home / RECORD).parent.mkdir(parents=True, exist_ok=True)
    words = [
        sys.executable,
        "-I",
        "-S",
        str(FOLLOWER),
        "gemini",
        "m-1",
        str(patience),
        "/bin/sh",
        "-c",
        script,
    ]
    env = {"GEMINI_CLI_HOME": str(home), "PATH": os.environ["PATH"]}
    return subprocess.Popen(words, env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def lines(output: bytes) -> list[Any]:
    return [json.loads(one) if one.startswith(b"{") else one.decode() for one in output.splitlines()]


def played(home: Path, script: str, **more: float) -> tuple[int, list[Any]]:
    child = start(home, script, **more)
    output, _ = child.communicate(timeout=60)
    return child.returncode, lines(output)


def test_output_is_passed_on_and_requests_are_added_as_they_are_recorded(tmp_path: Path) -> None:
    record = tmp_path / RECORD
    record.parent.mkdir(parents=True)
    record.write_text(usage(1) + "\n")
    script = f"echo one; echo '{usage(2)}' >> {RECORD}; printf 'no newline'; printf '%s' '{usage(3)}' >> {RECORD}; exit 3"
    code, said = played(tmp_path, script)
    assert code == 3
    assert said[0] == {"type": "huskies.begin", "model": "m-1"}
    told = [one for one in said if isinstance(one, dict) and one["type"] == "huskies.usage"]
    assert [one["request"] for one in told] == ["r2"]  # of the earlier run and of half a line nothing is told
    assert [one for one in said if isinstance(one, str)] == ["one", "no newline"]


def test_a_line_is_never_cut_by_an_added_one(tmp_path: Path) -> None:
    script = f"printf half; echo '{usage(1)}' >> {RECORD}; sleep 0.3; echo ' and half'"
    _, said = played(tmp_path, script)
    assert "half and half" in said and [one["request"] for one in said[1:] if isinstance(one, dict)] == ["r1"]


@pytest.mark.parametrize("trap", ["link", "fifo", "folder", "nonsense"])
def test_a_record_that_is_a_trap_is_not_read(tmp_path: Path, trap: str) -> None:
    record = tmp_path / RECORD
    record.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").write_text(usage(1) + "\n")
    if trap == "link":
        record.symlink_to(tmp_path / "elsewhere")
    elif trap == "fifo":
        os.mkfifo(record)
    elif trap == "folder":
        record.mkdir()
    else:
        record.write_bytes(b'"tokens" \xff\n[]\n["tokens"]\n{"type": "gemini"}\n')
    assert played(tmp_path, "echo done") == (
        0,
        [{"type": "huskies.begin", "model": "m-1"}, "done"],
    )


def test_a_child_that_holds_the_output_open_does_not_hold_the_end_up(tmp_path: Path) -> None:
    child = start(tmp_path, "sleep 600 & echo $!")
    assert child.wait(timeout=60) == 0
    assert child.stdout is not None
    with child.stdout:
        pid = int(lines(child.stdout.read1(4096))[-1])
    os.kill(pid, signal.SIGKILL)


def test_signals_reach_the_program_and_its_end_is_its_own(tmp_path: Path) -> None:
    child = start(tmp_path, "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    assert child.stdout is not None
    with child.stdout:
        seen = b""
        while b"ready" not in seen:
            seen += child.stdout.read1(4096)
        child.send_signal(signal.SIGTERM)
        assert child.stdout.read().endswith(b"told\n")
    assert child.wait(timeout=60) == 7
    assert played(tmp_path, "kill -KILL $$")[0] == -signal.SIGKILL


def test_a_program_that_cannot_be_started_is_a_plain_failure(tmp_path: Path) -> None:
    words = [sys.executable, "-I", "-S", str(FOLLOWER), "gemini", "m", "1", str(tmp_path / "none")]
    done = subprocess.run(
        words, env={"GEMINI_CLI_HOME": str(tmp_path)}, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1 and b"could not be started" in done.stderr
