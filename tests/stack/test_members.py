"""What an earlier process set left, and what a backup or a service manager can do to this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from huskies_site.stack import members, preflight, startup
from huskies_site.stack.preflight import unit_warning
from pipeline import conf
from pipeline.models import Capacity, Host
from pipeline.processes.identity import Identity
from pipeline.services import hosts

PROGRAM = "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); os.write(1, b'ready\\n'); signal.pause()"


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    assert child.stdout.readline() + child.stdout.readline() == b"ready\n" * 2
    yield child
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()


def record(home: Path, pid: int, monkeypatch: pytest.MonkeyPatch) -> Identity:
    one = Identity.of(pid)
    assert one is not None
    said = members.command_of(pid)
    monkeypatch.setattr(members, "command_of", lambda _: said)
    members.record(home, {"workers": one})
    monkeypatch.undo()
    return one


def test_the_children_of_a_dead_part_are_found_and_killed(
    tmp_path: Path, leader: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, leader.pid, monkeypatch)
    leader.kill()
    leader.wait()
    assert members.end_leftovers(tmp_path) == {"workers": 1}
    assert leader.stdout is not None
    assert leader.stdout.read() == b""  # the end of file: nobody holds it any more
    assert members.end_leftovers(tmp_path) == {}


def test_another_process_with_the_same_number_is_left_alone(
    tmp_path: Path, leader: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = record(tmp_path, leader.pid, monkeypatch)
    command, _ = members.recorded(tmp_path)
    assert members.members(Identity(one.pid, one.start_time - 1, one.boot_id), command) == []
    assert members.members(Identity(one.pid, one.start_time, "another boot"), command) == []
    assert members.members(one, "another command") == []
    assert len(members.members(one, command)) == 2
    assert members.end_leftovers(tmp_path) == {"workers": 2}


def test_a_damaged_record_is_as_none(tmp_path: Path) -> None:
    (tmp_path / members.FILE).write_text('{"command": 1')
    assert members.end_leftovers(tmp_path) == {}


def test_a_service_that_would_kill_agents_is_warned_of() -> None:
    said = unit_warning("huskies.service", {"KillMode": "control-group", "OOMPolicy": "continue"})
    assert said is not None and "KillMode=process (now control-group)" in said and "OOMPolicy" not in said
    assert unit_warning("huskies.service", {"KillMode": "process", "OOMPolicy": "continue"}) is None


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/data /srv/my\\040share nfs4 rw 0 0
tmpfs /srv/my\\040share/local tmpfs rw 0 0
box: /home/me/box fuse.sshfs rw 0 0
box: /srv/b\u00fccher fuse.sshfs rw 0 0
"""


def test_sqlite_on_a_network_share_is_refused_with_the_remedy() -> None:
    for good in ("/var/lib/huskies", "/srv/my share/local/data", "/srv/my", "/home/me/boxes"):
        preflight.require_local_disk(Path(good), MOUNTS)
    for bad in ("/srv/my share", "/srv/my share/data", "/home/me/box/data", "/srv/b\u00fccher/data"):
        with pytest.raises(preflight.CannotStart, match=r"is on a network share.*HUSKIES_HOME.*DATABASE_URL"):
            preflight.require_local_disk(Path(bad), MOUNTS)


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_older_than_its_folder_was_restored(tmp_path: Path, settings: Settings) -> None:
    from pipeline.datafolder import prepare

    settings.HUSKIES_HOME = tmp_path / "data"
    prepare(conf.home())
    first = startup.set_up()
    assert not first["restored"]
    again = startup.set_up()
    assert (again["restored"], again["epoch"]) == (False, first["epoch"] + 1)
    Capacity.objects.update(epoch=first["epoch"])
    after = startup.set_up()
    assert (after["restored"], after["epoch"]) == (True, again["epoch"] + 1)
    # Within one run of the server too: the folder remembers a beat that the database has not seen.
    hosts.beat()
    assert not startup.set_up()["restored"]
    seen = Host.objects.get(name=conf.host()).seen_at
    hosts.beat()
    Host.objects.filter(name=conf.host()).update(seen_at=seen)
    assert startup.set_up()["restored"]
