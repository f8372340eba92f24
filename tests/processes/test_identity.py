"""A process is told from every other that ever had its pid."""

import os
import secrets
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.processes.identity import Identity, boot_id, is_alive, marked_processes, open_pidfd, send_signal
from pipeline.processes.sweep import sweep_marked

KEY = secrets.token_hex(10)  # of this run of the suite: another may be running on this host


@contextmanager
def killed_at_the_end(argv: list[str], **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(argv, **options) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    env = {"HUSKIES_SESSION": KEY, "PATH": os.environ["PATH"]}
    with killed_at_the_end(["sleep", "600"], env=env) as child:
        yield child


def identity_of(child: "subprocess.Popen[bytes]") -> Identity:
    identity = Identity.of(child.pid)
    assert identity is not None
    return identity


def test_an_identity_survives_json() -> None:
    identity = Identity(12, 34567, boot_id())
    assert Identity.from_json(identity.to_json()) == identity


@pytest.mark.parametrize("text", ["[]", "{}", '{"pid": "1", "start_time": 2, "boot_id": "x"}', ""])
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Identity.from_json(text)


def test_another_process_with_the_same_pid_is_not_it(child: "subprocess.Popen[bytes]") -> None:
    identity = identity_of(child)
    assert is_alive(identity)
    earlier = Identity(identity.pid, identity.start_time - 1, identity.boot_id)
    assert not is_alive(earlier)
    assert open_pidfd(earlier) is None
    assert not send_signal(earlier, signal.SIGKILL)
    assert child.poll() is None


def test_nothing_of_another_boot_is_alive(child: "subprocess.Popen[bytes]") -> None:
    identity = identity_of(child)
    old = Identity(identity.pid, identity.start_time, "0" * 36)
    assert not is_alive(old) and open_pidfd(old) is None and not send_signal(old, signal.SIGKILL)
    assert child.poll() is None


def test_a_zombie_is_dead(child: "subprocess.Popen[bytes]") -> None:
    identity = identity_of(child)
    fd = open_pidfd(identity)
    assert fd is not None
    assert send_signal(identity, signal.SIGKILL)
    assert select.select([fd], [], [], 10)[0] == [fd]
    os.close(fd)
    # Not waited for yet: it is still in the table.
    assert not is_alive(identity)
    assert open_pidfd(identity) is None
    child.wait()
    assert not is_alive(identity)
    assert Identity.of(child.pid) is None


def test_a_name_with_parentheses_and_spaces_does_not_confuse() -> None:
    source = "import sys; open('/proc/self/comm', 'w').write(') R 1 (x'); print(flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", source]
    with killed_at_the_end(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert is_alive(identity_of(child))


def test_marked_processes_are_found_by_name_and_value(child: "subprocess.Popen[bytes]") -> None:
    assert [(one.pid, one.value) for one in marked_processes("HUSKIES_SESSION", KEY)] == [(child.pid, KEY)]
    assert child.pid in [one.pid for one in marked_processes("HUSKIES_SESSION")]
    assert marked_processes("HUSKIES_SESSION", KEY[:-1]) == []
    assert marked_processes("USKIES_SESSION", KEY) == []


def test_a_marker_behind_a_large_environment_is_found() -> None:
    env = {f"PAD{i:03}": "x" * 100_000 for i in range(15)} | {"ZMARK": KEY}
    with killed_at_the_end(["sleep", "600"], env={"PATH": os.environ["PATH"], **env}) as child:
        assert [one.pid for one in marked_processes("ZMARK", KEY)] == [child.pid]


def test_a_sweep_kills_a_stopped_and_stubborn_process(child: "subprocess.Popen[bytes]") -> None:
    child.send_signal(signal.SIGSTOP)
    assert sweep_marked(KEY) == []
    assert child.wait() == -signal.SIGKILL


def test_a_sweep_of_an_unused_key_touches_nothing(child: "subprocess.Popen[bytes]") -> None:
    assert sweep_marked(KEY[::-1] + "0") == []
    assert child.poll() is None
