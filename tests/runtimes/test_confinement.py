"""Confinement, tried from inside."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.processes import confine
from pipeline.processes.confine import allowed_environment, confined, level_available
from tests.runtimes.conftest import make_repository

IDENTITY = {f"GIT_{who}_{what}": "agent" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
bubblewrap = pytest.mark.needs_bubblewrap


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with secrets, a session's copy and folders, and another session's copy."""
    folder = tmp_path / "data"
    for name in ("home", "tmp", "config"):
        (folder / "sessions" / "one" / name).mkdir(parents=True)
    make_repository(folder / "copies" / "one")
    make_repository(folder / "copies" / "two")
    (folder / "control").mkdir()
    (folder / "control" / "object").write_text("object")
    (folder / "secret.key").write_text("canary")
    return folder


def inside(
    data: Path, script: str, *, level: str = "bubblewrap", network: bool = True
) -> subprocess.CompletedProcess[str]:
    copy, session = data / "copies" / "one", data / "sessions" / "one"
    argv = confined(
        ["/bin/sh", "-c", script],
        level=level,
        writable=[copy, session / "home", session / "tmp", session / "config"],
        readable=[data / "control"],
        hidden=[data],
        network=network,
        cwd=copy,
    )
    env = allowed_environment(session / "home", session / "tmp", IDENTITY)
    return subprocess.run(argv, env=env, cwd=copy, capture_output=True, text=True, timeout=60, check=False)


@bubblewrap
def test_the_agent_edits_and_commits_in_its_copy(data: Path) -> None:
    done = inside(data, "echo hi > a.txt && git add -A && git commit -qm work && git log -1 --format=%an:%s")
    assert (done.returncode, done.stdout) == (0, "agent:work\n"), done.stderr
    assert (data / "copies" / "one" / "a.txt").read_text() == "hi\n"


@bubblewrap
def test_what_is_named_readable_below_a_hidden_folder_is_seen_and_nothing_else(data: Path) -> None:
    done = inside(data, f"cat {data}/control/object; echo; ls -A {data} {data}/copies {data}/sessions")
    assert done.stdout.split() == [
        "object",
        f"{data}:",
        "control",
        "copies",
        "sessions",
        f"{data}/copies:",
        "one",
        f"{data}/sessions:",
        "one",
    ]


@bubblewrap
def test_secrets_of_the_host_cannot_be_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "owner"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("canary")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DATABASE_URL", "canary")
    places = [
        data / "secret.key",
        home / ".ssh" / "id_ed25519",
        data / "copies" / "two" / ".git" / "HEAD",
        "/etc/shadow",
    ]
    script = "; ".join(f"cat {place}" for place in places)
    done = inside(data, f"{script}; env; cat /proc/*/environ; ls -A /run /tmp {home}")
    assert "canary" not in done.stdout
    assert "ref:" not in done.stdout
    assert f"/proc/{os.getpid()}" not in done.stdout


@bubblewrap
@pytest.mark.parametrize(
    "attempt",
    [
        "echo x > {outside}/new",
        "ln -s {outside} link && echo x > link/new",
        "echo x > ../two/new",
        "echo x > {data}/control/object",
        "mkdir {data}/copies/three && mv a {data}/copies/three",
        "echo x > /usr/bin/x",
        "ln {data}/control/object hard && echo x > hard",
        "mount -t tmpfs none {outside}",
        "umount .git/config",
    ],
)
def test_writes_outside_are_refused(data: Path, tmp_path: Path, attempt: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside(data, attempt.format(outside=outside, data=data))
    assert list(outside.iterdir()) == []
    assert not (data / "copies" / "three").exists()
    assert not (data / "copies" / "two" / "new").exists()
    assert (data / "control" / "object").read_text() == "object"


@bubblewrap
@pytest.mark.parametrize(
    "attempt",
    [
        "echo '[core] fsmonitor = ./evil' >> .git/config",
        "git config core.hooksPath evil",
        "mv .git/config .git/config.old",
        "rm .git/config",
        "mkdir -p .git/hooks && echo x > .git/hooks/pre-commit",
        "rm -r .git/hooks",
        "echo /elsewhere > .git/info/alternates",
        "echo '* filter=evil' > .git/info/attributes",
        "mv .git .old && mkdir .git",
    ],
)
def test_the_copys_git_settings_and_hooks_are_read_only(data: Path, attempt: str) -> None:
    """The hooks even where the folder did not exist before."""
    git = data / "copies" / "one" / ".git"
    for sample in (git / "hooks").iterdir():
        sample.unlink()
    (git / "hooks").rmdir()
    before = (git / "config").read_text()
    done = inside(data, attempt)
    assert done.returncode != 0
    assert (git / "config").read_text() == before
    assert not list((git / "hooks").iterdir())
    assert not (git / "info" / "alternates").exists() and not (git / "info" / "attributes").exists()


@bubblewrap
def test_nothing_survives_the_main_program(data: Path) -> None:
    """The daemon holds our end of a pipe: it reads end of file once all of them are gone."""
    reading, writing = os.pipe()
    hold, let_go = os.pipe()
    copy = data / "copies" / "one"
    daemon = f"trap '' TERM HUP; echo on > /proc/self/fd/{writing}; exec sleep 1000"
    argv = confined(
        ["/bin/sh", "-c", f'setsid nohup sh -c "$0" & read word < /proc/self/fd/{hold}', daemon],
        level="bubblewrap",
        writable=[copy],
        readable=[],
        hidden=[data],
        network=True,
        cwd=copy,
    )
    with subprocess.Popen(argv, env={"PATH": os.defpath}, pass_fds=(writing, hold)) as program:
        os.close(writing)
        os.close(hold)
        assert os.read(reading, 10) == b"on\n"
        os.write(let_go, b"go\n")
        assert program.wait(timeout=60) == 0
    assert os.read(reading, 10) == b""
    os.close(reading)
    os.close(let_go)


@bubblewrap
def test_a_path_of_an_earlier_session_is_not_mistaken_for_the_copy(data: Path) -> None:
    done = inside(
        data, f"mkdir -p {data}/copies/two && echo lost > {data}/copies/two/work; echo x > {data}/y"
    )
    assert done.returncode != 0
    assert done.stderr.count("Read-only file system") == 2


@bubblewrap
def test_the_agent_has_no_rights_and_no_terminal(data: Path) -> None:
    done = inside(
        data, "id -u; grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status; (echo x > /dev/tty) 2>&1"
    )
    words = done.stdout.split()
    assert words[0] != "0"
    assert words[1:7] == ["CapPrm:", "0" * 16, "CapEff:", "0" * 16, "NoNewPrivs:", "1"]
    assert "No such device" in done.stdout or "cannot" in done.stdout


@bubblewrap
def test_the_network_can_be_taken_away(data: Path) -> None:
    script = "cat /proc/net/dev | tail -n +3 | cut -d: -f1"
    assert inside(data, script, network=False).stdout.split() == ["lo"]
    assert "lo" in inside(data, script).stdout.split()


@bubblewrap
def test_this_interpreter_and_the_programs_on_the_path_still_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "owner"
    tools = home / "bin"
    tools.mkdir(parents=True)
    (home / "private").write_text("canary")
    (tools / "mytool").write_text("#!/bin/sh\necho tool works\n")
    (tools / "mytool").chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    done = inside(
        data, f"mytool; git --version; {sys.executable} -I -S -c 'print(6 * 7)'; cat {home}/private"
    )
    assert "tool works\ngit version" in done.stdout
    assert "42" in done.stdout
    assert "canary" not in done.stdout


def test_the_environment_is_an_allow_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name != "PATH":
            monkeypatch.delenv(name)
    for name in ("DATABASE_URL", "SSH_AUTH_SOCK", "GITHUB_TOKEN", "LD_PRELOAD", "PYTHONPATH", "GIT_DIR"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("https_proxy", "http://user:canary@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")
    env = allowed_environment(tmp_path / "h", tmp_path / "t", {"EXTRA": "1"})
    assert set(env) == {"PATH", "HOME", "TMPDIR", "LANG", "TERM", "NO_PROXY", "EXTRA"}
    assert "canary" not in str(env)


def test_the_servers_own_virtual_environment_is_not_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "base_prefix", "/elsewhere")
    monkeypatch.setenv("PATH", "/usr/bin:/bin:.::/nowhere/at/all:/bin")
    assert confine.path_entries() == [Path("/bin")]


def test_without_a_level_the_command_is_left_alone_and_an_unknown_level_is_refused() -> None:
    def at(level: str) -> list[str]:
        return confined(["x"], level=level, writable=[], readable=[], hidden=[], network=True, cwd=Path("/"))

    assert at("none") == ["x"]
    with pytest.raises(ValueError, match="no level of confinement"):
        at("fort-knox")


@pytest.fixture
def fresh_level() -> Iterator[None]:
    level_available.cache_clear()
    yield
    level_available.cache_clear()


@bubblewrap
def test_the_level_is_found_by_trying(fresh_level: None) -> None:
    assert level_available() == ("bubblewrap", "")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (None, "not installed"),
        ("#!/bin/sh\necho 'No permissions to create namespace' >&2; exit 1\n", "No permissions"),
    ],
)
def test_a_host_without_confinement_says_why(
    fresh_level: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, reason: str
) -> None:
    if program is not None:
        (tmp_path / "bwrap").write_text(program)
        (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    level = level_available()
    assert level.name == "none"
    assert reason in level.reason
