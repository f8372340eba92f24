"""`up`, for real: its greeting, its refusals, and what happens when anything of it dies."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.stack.server import Up, browser, command, processes_of, wait_until_none

Start = Callable[..., Up]


def test_the_printed_link_logs_the_first_admin_in_once(start: Start) -> None:
    up = start().ready()
    link = up.wait_for(r"(http\S+/login-link/\S+)")[1]
    person, other = browser(), browser()
    page = person.open(link, timeout=10).read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert token is not None
    form = urlencode({"csrfmiddlewaretoken": token[1]}).encode()
    home_page = person.open(link, data=form, timeout=10)
    assert "/login" not in home_page.geturl()
    other.open(up.address + "/login/", timeout=10).read()
    again = browser()
    try:
        text = again.open(link, timeout=10).read().decode()
    except OSError as error:  # whatever it answers, it must not be a way in
        text = str(error)
    assert again.open(up.address + "/", timeout=10).geturl().startswith(up.address + "/login"), text
    # From a shell that does not know at which port the server was started.
    another = command(up.home, "login-link", "--json", HUSKIES_BIND="127.0.0.1:8000")
    assert json.loads(another.stdout)["url"].startswith(f"{up.address}/login-link/")
    assert up.stop() == 0


def test_secrets_are_private_to_the_owner_of_the_data_folder(start: Start, home: Path) -> None:
    start().ready()
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "secret.key").stat().st_mode & 0o777 == 0o600


def test_a_second_up_says_who_holds_the_data_folder(start: Start, home: Path) -> None:
    first = start().ready()
    second = command(home, "up")
    assert second.returncode == 1
    assert f"process {first.child.pid}" in second.stderr
    assert second.stderr.count("\n") == 1


def test_a_used_port_is_one_sentence_with_the_remedy(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = command(home, "up", HUSKIES_BIND=f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"Port {port} of 127.0.0.1 is used by another program" in done.stderr
    assert "HUSKIES_BIND=" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_one_sentence_with_the_remedy() -> None:
    done = command(Path("/proc/huskies/data"), "up")
    assert done.returncode == 1
    assert "HUSKIES_HOME" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_command_before_the_first_up_says_so(home: Path) -> None:
    done = command(home, "story", "list")
    assert done.returncode == 1
    assert "./huskies up" in done.stderr
    assert not home.exists()


@pytest.mark.parametrize("name", ["web", "workers", "supervisor"])
def test_a_killed_part_is_started_again(start: Start, name: str) -> None:
    up = start().ready()
    before = up.parts[name]
    os.kill(before, signal.SIGKILL)
    up.wait_for(rf"{name} died \(SIGKILL\)")
    up.wait_for(rf"{name} started", count=2)
    assert up.parts[name] != before
    assert browser().open(up.address + "/login/", timeout=20).status == 200
    assert up.stop() == 0


def test_visitors_wait_for_a_web_part_that_starts_again(start: Start) -> None:
    up = start().ready()
    os.kill(up.parts["web"], signal.SIGKILL)
    assert browser().open(up.address + "/login/", timeout=20).status == 200


def test_a_queue_that_hangs_is_killed_and_starts_again(start: Start) -> None:
    up = start(HUSKIES_HEARTBEAT_S="1").ready()
    os.killpg(up.parts["workers"], signal.SIGSTOP)
    up.wait_for("workers have not answered")
    up.wait_for("workers started", count=2)


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_database_that_is_taken_away_under_the_server_ends_it_with_a_sentence(
    start: Start, home: Path, what: str
) -> None:
    up = start(HUSKIES_HEARTBEAT_S="1").ready()
    database = home / "huskies.sqlite3"
    kept = database.rename(home / "before.sqlite3")
    if what == "replaced":
        shutil.copy(kept, database)
    up.wait_for(rf"The database {database} was (removed|replaced by another file) while the server ran")
    assert up.child.wait(timeout=20) == 1
    assert wait_until_none(home) == []


def test_ctrl_c_ends_every_part(start: Start, home: Path) -> None:
    up = start().ready()
    assert up.stop() == 0
    assert wait_until_none(home) == []


def test_a_second_ctrl_c_ends_at_once_what_does_not_end_by_itself(start: Start, home: Path) -> None:
    up = start().ready()
    os.kill(up.parts["supervisor"], signal.SIGSTOP)  # it hears of no SIGTERM
    up.child.send_signal(signal.SIGINT)
    up.wait_for("Once more ends it at once")
    assert up.stop() == 1
    assert "Ending at once." in up.said + (up.child.stdout.read().decode() if up.child.stdout else "")
    assert wait_until_none(home) == []


def test_nothing_of_a_killed_up_lives_on(start: Start, home: Path) -> None:
    up = start().ready()
    assert len(processes_of(home)) >= 4
    up.stop(signal.SIGKILL)
    assert wait_until_none(home) == []
    start().ready()


def test_down_ends_the_server(start: Start, home: Path) -> None:
    up = start().ready()
    done = command(home, "down", "--json")
    assert json.loads(done.stdout)["stopped"] == up.child.pid
    assert up.child.wait(timeout=10) == 0


def test_the_demo_is_done_within_a_minute(start: Start, home: Path) -> None:
    up = start().ready()

    def told(*words: str) -> Any:
        done = command(home, *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    made = told("demo")
    assert [story["number"] for story in made["stories"]] == [1, 2, 3]
    seen_waiting, stages = False, {}
    with closing(sqlite3.connect(home / "huskies.sqlite3")) as looking:
        while set(stages.values()) != {"done"}:  # a command takes longer than the third story waits
            rows = looking.execute("SELECT number, stage, waiting_for FROM pipeline_story").fetchall()
            stages = {number: stage for number, stage, _ in rows}
            seen_waiting |= any("coders busy" in waits for _, _, waits in rows)
            assert set(stages.values()) <= {"coding", "qa", "merge", "done"}, rows
            select.select([up.child.stdout], [], [], 0.05)  # until it says something, or a while
    assert [story["stage"] for story in told("story", "list")] == ["done"] * 3
    assert seen_waiting
    doctor = command(home, "doctor")
    assert (doctor.returncode, doctor.stdout) == (0, "Database, logs, git and processes tell the same.\n")
    assert up.stop() == 0
