"""Steps run in order, each in a clean process of its own, and the exit record says how it ended."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.processes.starting import SpawnFailed
from tests.processes.runs import PATH, Run, program, shell

Start = Callable[..., Run]

LOOK_AROUND = """
import json, os, resource
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)
fds = []
for fd in range(100):
    try:
        os.fstat(fd)
        fds.append(fd)
    except OSError:
        pass
umask = os.umask(0)
oom = int(open('/proc/self/oom_score_adj').read())
limits = {name: resource.getrlimit(getattr(resource, 'RLIMIT_' + name))[0] for name in ('CORE', 'NOFILE')}
print(json.dumps({'env': dict(os.environ), 'fds': fds, 'sid': os.getsid(0) == os.getpid(), 'umask': umask,
    'nice': os.nice(0), 'group': os.getpgid(0) == os.getpid(), 'oom': oom, 'limits': limits, 'blocked': int(status['SigBlk'], 16),
    'ignored': int(status['SigIgn'], 16), 'cwd': os.getcwd(), 'stdin': os.readlink('/proc/self/fd/0')}))
"""


def test_the_exit_record_tells_how_the_program_ended(finished: Start) -> None:
    run = finished(shell("exit 3"))
    record = run.finish()
    assert record["key"] == run.key
    assert (record["outcome"], record["step"], record["code"], record["signal"]) == (
        "exited",
        "agent",
        3,
        None,
    )
    assert record["verified"] is True and record["leftovers"] == [] and record["main_started"] is True
    assert record["started"] <= record["ended"]
    assert record["max_rss_kb"] > 100 and record["cpu_seconds"] >= 0


def test_death_by_a_signal_is_told(finished: Start) -> None:
    record = finished(shell("kill -SEGV $$")).finish()
    assert (record["outcome"], record["code"], record["signal"]) == ("exited", None, 11)


def test_a_child_starts_in_a_clean_process(finished: Start, tmp_path: Path) -> None:
    # Without -I Python would itself change the environment.
    step = program(LOOK_AROUND, cwd=str(tmp_path), env={"PATH": PATH, "LANG": "C.UTF-8", "A": "b=c\nd"})
    run = finished(step, nofile=100, nice=5)
    assert run.output(2) == []
    seen = json.loads(run.output()[0])
    assert seen["env"] == {"PATH": PATH, "LANG": "C.UTF-8", "A": "b=c\nd", "HUSKIES_SESSION": run.key}
    assert seen["fds"] == [0, 1, 2]
    assert seen["sid"] and seen["group"]
    assert seen["umask"] == 0o077
    assert (seen["oom"], seen["nice"]) == (500, os.nice(0) + 5)
    assert seen["limits"] == {"CORE": 0, "NOFILE": 100}
    assert seen["blocked"] == 0
    # Python itself ignores PIPE (13) and XFSZ (25) when it starts.
    assert seen["ignored"] & ~(1 << 12 | 1 << 24) == 0
    assert seen["cwd"] == str(tmp_path)
    assert seen["stdin"] == "/dev/null"


def test_the_run_folder_is_private(finished: Start) -> None:
    run = finished(shell("true"))
    assert stat.S_IMODE(run.folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in run.folder.iterdir()}
    assert modes == {"lock": 0o600, "identity": 0o600, "log": 0o600, "exit": 0o600}


def test_a_long_text_reaches_a_slow_reader_of_stdin(finished: Start) -> None:
    source = "import sys, hashlib; text = sys.stdin.buffer.read(); print(len(text), text.decode()[-5:])"
    run = finished(program(source, stdin="ä" * 500_000 + "\nend.\n", env={"PATH": PATH, "PYTHONUTF8": "1"}))
    assert run.output() == [b"1000006 end.", b""]


def test_a_child_that_does_not_read_its_stdin_ends_as_it_likes(finished: Start) -> None:
    assert finished(shell("exec 0<&-; echo done", stdin="x" * 1_000_000)).output() == [b"done"]


def test_steps_run_in_order_and_a_failing_one_ends_the_run(finished: Start) -> None:
    run = finished(
        shell("echo setup", name="setup", main=False),
        shell("echo broken; exit 7", name="build", main=False),
        shell("echo never"),
    )
    record = run.finish()
    assert run.output() == [b"setup", b"broken"]
    assert (record["outcome"], record["step"], record["code"]) == ("step_failed", "build", 7)
    assert record["reason"] == "The step build failed: it ended with code 7."
    assert record["main_started"] is False
    assert [note["step"] for note in run.notes("step-end")] == ["setup", "build"]


def test_an_optional_step_may_fail(finished: Start) -> None:
    run = finished(
        shell("exit 1", name="warm", main=False, optional=True),
        {"name": "absent", "argv": ["/no/such/program"], "optional": True},
        shell("echo ran"),
        shell("exit 9", name="after", main=False, optional=True),
    )
    record = run.finish()
    assert run.output() == [b"ran"]
    assert (record["outcome"], record["step"], record["code"]) == ("exited", "after", 0)
    ends = {note["step"]: (note["outcome"], note["code"]) for note in run.notes("step-end")}
    assert ends == {
        "warm": ("exited", 1),
        "absent": ("spawn_failed", None),
        "agent": ("exited", 0),
        "after": ("exited", 9),
    }


def test_steps_follow_an_optional_agent_and_its_code_is_kept(finished: Start) -> None:
    run = finished(shell("exit 5", optional=True), shell("echo saved", name="intake", main=False))
    record = run.finish()
    assert run.output() == [b"saved"]
    assert (record["outcome"], record["step"], record["code"]) == ("exited", "intake", 5)


def test_a_step_after_the_agent_that_fails_is_named(finished: Start) -> None:
    record = finished(shell("true"), shell("exit 4", name="intake", main=False)).finish()
    assert (record["outcome"], record["step"], record["code"]) == ("step_failed", "intake", 4)
    assert record["main_started"] is True


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"argv": ["/no/such"]}, "starting the program /no/such: No such file or directory"),
        ({"argv": ["nonesuch"]}, "starting the program nonesuch: No such file or directory"),
        ({"cwd": "/no/such/folder"}, "entering the folder /no/such/folder: No such file or directory"),
        ({"argv": ["/etc/passwd"]}, "starting the program /etc/passwd: Permission denied"),
    ],
)
def test_a_program_that_cannot_start_is_named_with_the_reason(
    finished: Start, fields: dict[str, Any], reason: str
) -> None:
    record = finished(shell("true", **fields)).finish()
    assert (record["outcome"], record["step"], record["main_started"]) == ("spawn_failed", "agent", False)
    assert record["reason"] == f"The step agent could not start: {reason}."
    assert record["code"] is None


def test_file_steps_make_move_and_remove(finished: Start, tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / "deep" / "deeper").mkdir(parents=True)
    (old / "deep" / "deeper" / "file").write_text("x")
    (old / "link").symlink_to(tmp_path)
    (old / "deep").chmod(0o500)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(9 << 20))
    new = tmp_path / "new"
    files = [
        ["mkdir", f"{new}.part/a/b"],
        ["write", f"{new}.part/a/b/text", "héllo\n", 0o755],
        ["copy", str(big), f"{new}.part/copy"],
        ["rename", f"{new}.part", str(new)],
        ["remove", str(old)],
        ["remove", f"{tmp_path}/never-was"],
    ]
    run = finished({"name": "copy", "files": files}, shell(f"cat {new}/a/b/text"))
    assert run.finish()["outcome"] == "exited"
    assert run.output() == ["héllo".encode()]
    assert stat.S_IMODE((new / "a/b/text").stat().st_mode) == 0o755
    assert (new / "copy").read_bytes() == big.read_bytes()
    assert not old.exists() and big.exists()


def test_a_file_step_that_fails_ends_the_run_with_a_sentence(finished: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    record = finished(
        {"name": "copy", "files": [["copy", f"{tmp_path}/pipe", f"{tmp_path}/x"]]}, shell("true")
    ).finish()
    assert (record["outcome"], record["step"], record["code"]) == ("step_failed", "copy", None)
    assert record["reason"] == f"The step copy failed at copy {tmp_path}/pipe: Invalid argument."


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, "its version is 2 and this runner speaks version 1"),
        ({"steps": []}, "it has no steps"),
        ({"steps": [{"name": "x"}]}, "step x needs one of a program, a chore and files"),
        ({"steps": [{"name": "x", "argv": ["a\0b"]}]}, "step x has a NUL character"),
        (
            {"steps": [{"name": "x", "files": [["write", "here", "", 0o600]]}]},
            "a path that is not absolute: 'here'",
        ),
        ({"steps": [{"name": "x", "files": [["chmod", "/a"]]}]}, "a file operation 'chmod' that is unknown"),
        ({"limits": {"wall": -1}}, "limits.wall is not a number of seconds"),
        ({"limits": {"silence": float("nan")}}, "limits.silence is not a number of seconds"),
        ({"limits": {"on_cap": "burn"}}, "limits.on_cap is neither"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_before_anything_starts(
    prepared: Start, change: dict[str, object], sentence: str
) -> None:
    run = prepared(shell("true"))
    run.spec |= change
    with pytest.raises(SpawnFailed, match="could not be started") as refusal:
        run.start()
    assert sentence in str(refusal.value)
    assert not (run.folder / "identity").exists()
