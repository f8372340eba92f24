"""The one place that runs git: list arguments, a complete environment, a time-out, bounded output.

Two profiles. `control_environment`: for the server's own repositories; nothing of the machine's or a person's
configuration is read. `network_environment`: for the project's own repository, where the person's credential
helpers and ssh agent are needed; hooks, fsmonitor and unusual transports stay off (`NETWORK_OPTIONS`)."""

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, NamedTuple

from pipeline.git.names import HostileName

SERVER_NAME = "huskies"
SERVER_EMAIL = "server@huskies.invalid"
MINIMUM_VERSION = (2, 38)  # `git merge-tree --write-tree` came with 2.38

# Passed on from the person's environment, for their own repository only.
_PERSONAL = (
    "HOME USER LOGNAME SSH_AUTH_SOCK XDG_CONFIG_HOME XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS "
    "SSL_CERT_FILE SSL_CERT_DIR http_proxy https_proxy no_proxy all_proxy HTTPS_PROXY NO_PROXY ALL_PROXY"
).split()
_QUIET = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
)
NETWORK_OPTIONS = (
    *_QUIET,
    *("-c", "protocol.allow=never", "-c", "protocol.https.allow=always", "-c", "protocol.http.allow=always"),
    *(
        "-c",
        "protocol.ssh.allow=always",
        "-c",
        "protocol.git.allow=always",
        "-c",
        "protocol.file.allow=always",
    ),
    *(
        "-c",
        "submodule.recurse=false",
        "-c",
        "fetch.recurseSubmodules=false",
        "-c",
        "push.recurseSubmodules=no",
    ),
    *("-c", "push.gpgSign=false", "-c", "fetch.fsckObjects=false", "-c", "transfer.fsckObjects=false"),
)
_TAIL = 8192
_CHUNK = 65536
_DRAIN = 17  # reads after the exit: a pipe holds at most 1 MiB, and who still writes then is not our child


class GitError(Exception):
    """Git could not do it: killed, out of disk, or an answer nobody expected. Never a conflict: worth another
    try."""

    def __init__(self, command: Sequence[str], code: int | None, output: str, reason: str = "") -> None:
        self.command = [str(word) for word in command]
        self.code = code
        self.output = output.strip()[-4096:]
        if not reason:
            reason = (
                f"was killed by signal {-code}"
                if code is not None and code < 0
                else f"ended with code {code}"
            )
        super().__init__(
            f"`{' '.join(self.command)[:500]}` {reason}" + (f": {self.output}" if self.output else ".")
        )


class GitTimeout(GitError):
    """Git did not end within its time and was killed, with everything it had started."""


class OutputTooLarge(GitError):
    """Git wrote more than the caller had room for; it was killed."""


class Completed(NamedTuple):
    """How a command ended. `stdout` is empty when it went to a sink; `cut`: it was ended because the cap was
    reached."""

    code: int
    stdout: bytes
    errors: str
    cut: bool = False


def control_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The complete environment for git on the server's own repositories.

    HOME is /dev/null rather than an empty folder: below it nothing can ever appear, and git takes ENOTDIR for
    "no file"."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        **_shared_environment(),
        **(extra or {}),
    }


def network_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The complete environment for git in, or towards, the project's own repository."""
    personal = {name: os.environ[name] for name in _PERSONAL if name in os.environ}
    return {"PATH": os.environ.get("PATH", os.defpath), **personal, **_shared_environment(), **(extra or {})}


def _shared_environment() -> dict[str, str]:
    return {
        "LC_ALL": "C",
        "TZ": "UTC",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "SSH_ASKPASS": "true",
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_EDITOR": "true",
        "GIT_SEQUENCE_EDITOR": "true",
        "GIT_PAGER": "cat",
        "GIT_OPTIONAL_LOCKS": "0",
        # refs/replace may swap any object for another: what is gated must be what the id names.
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_AUTHOR_NAME": SERVER_NAME,
        "GIT_AUTHOR_EMAIL": SERVER_EMAIL,
        "GIT_COMMITTER_NAME": SERVER_NAME,
        "GIT_COMMITTER_EMAIL": SERVER_EMAIL,
    }


def git(
    control: Path,
    *arguments: str,
    stdin: bytes | IO[bytes] | None = None,
    ok: Iterable[int] = (0,),
    timeout: float = 60.0,
    cap: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run git on a control repository, with nothing but that repository's own configuration.

    `cap`: bytes of output to keep; more than that ends the command with `cut`. Raises GitError for a code not
    in `ok`."""
    command = ["git", f"--git-dir={control}", *arguments]
    return checked(
        command, control_environment(environment), cwd=control, stdin=stdin, ok=ok, timeout=timeout, cap=cap
    )


def project_git(
    folder: Path | None,
    *arguments: str,
    control: Path | None = None,
    ok: Iterable[int] = (0,),
    timeout: float = 600.0,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run git in the project's own repository (`folder`), or from `control` towards it; with the person's
    credentials."""
    where = (f"--git-dir={control}",) if control is not None else ()
    command = ["git", *NETWORK_OPTIONS, *where, *arguments]
    return checked(
        command,
        network_environment(environment),
        cwd=folder or control or Path("/"),
        stdin=stdin,
        ok=ok,
        timeout=timeout,
    )


def checked(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    cwd: Path,
    stdin: bytes | IO[bytes] | None = None,
    ok: Iterable[int] = (0,),
    timeout: float,
    cap: int | None = None,
    sink: IO[bytes] | None = None,
) -> Completed:
    """`execute`, with a GitError for every code that the caller did not expect."""
    done = execute(command, environment, cwd=cwd, stdin=stdin, timeout=timeout, cap=cap, sink=sink)
    if done.code not in ok and not done.cut:
        raise GitError(command, done.code, done.errors or done.stdout[-_TAIL:].decode(errors="replace"))
    return done


def execute(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    cwd: Path,
    stdin: bytes | IO[bytes] | None = None,
    timeout: float,
    cap: int | None = None,
    sink: IO[bytes] | None = None,
) -> Completed:
    """Run one command to its end and return how it ended; output is bounded, the end is its own exit, not end
    of file.

    With `sink`, standard output is written there and more than `cap` bytes raise OutputTooLarge. Raises
    GitTimeout (with the whole process group killed), HostileName for a NUL or line break in an argument,
    GitError when the program is missing."""
    for word in command:
        if "\0" in word or "\n" in word:
            raise HostileName(f"The argument {word[:80]!a} is refused: it holds a NUL or a line break.")
    with _as_file(stdin) as source:
        try:
            child = subprocess.Popen(
                list(command),
                env=dict(environment),
                cwd=cwd,
                stdin=source if source is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise GitError(command, None, str(error), "could not be started") from error
    with child:
        try:
            return _follow(child, command, time.monotonic() + timeout, cap, sink)
        finally:
            if child.returncode is None:
                _kill_group(child.pid)
                child.wait()


def _follow(
    child: subprocess.Popen[bytes],
    command: Sequence[str],
    deadline: float,
    cap: int | None,
    sink: IO[bytes] | None,
) -> Completed:
    assert child.stdout is not None and child.stderr is not None  # noqa: S101
    out, err = child.stdout.fileno(), child.stderr.fileno()
    exited = os.pidfd_open(child.pid)
    try:
        poll = select.poll()
        for descriptor in (out, err):
            os.set_blocking(descriptor, False)
            poll.register(descriptor, select.POLLIN)
        poll.register(exited, select.POLLIN)
        kept, tail, size = bytearray(), bytearray(), 0
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
            # Drain after the exit was seen, not before: what a dead child wrote is in the pipe by then. A
            # grandchild that keeps the pipe open (an ssh master connection) must not keep us waiting.
            last = exited in ready
            for descriptor in (out, err):
                for _ in range(_DRAIN if last else int(descriptor in ready)):
                    data = _read(descriptor)
                    if data is None:
                        break
                    if not data:
                        if not last:
                            poll.unregister(descriptor)
                        break
                    if descriptor == err:
                        tail += data
                        del tail[:-_TAIL]
                        continue
                    size += len(data)
                    if cap is not None and size > cap:
                        if sink is not None:
                            raise OutputTooLarge(
                                command, None, "", f"wrote more than {cap} bytes and was stopped"
                            )
                        kept += data[: len(data) - (size - cap)]
                        return Completed(0, bytes(kept), tail.decode(errors="replace"), cut=True)
                    if sink is not None:
                        sink.write(data)
                    else:
                        kept += data
            if last:
                return Completed(child.wait(), bytes(kept), tail.decode(errors="replace"))
            if time.monotonic() >= deadline:
                raise GitTimeout(
                    command, None, tail.decode(errors="replace"), "did not end in time and was killed"
                )
    finally:
        os.close(exited)


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return None


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _as_file(stdin: bytes | IO[bytes] | None) -> "nullcontext[IO[bytes] | None] | IO[bytes]":
    """Input as a file: a pipe would need feeding while we read, and a full one would deadlock."""
    if not isinstance(stdin, bytes):
        return nullcontext(stdin)
    spool = tempfile.TemporaryFile()
    spool.write(stdin)
    spool.seek(0)
    return spool


def version() -> tuple[int, ...]:
    """Git's version as numbers, (2, 39, 5). Raises GitError when git is missing."""
    words = (
        checked(["git", "--version"], control_environment(), cwd=Path("/"), timeout=10)
        .stdout.decode()
        .split()
    )
    return tuple(int(part) for part in words[2].split(".") if part.isdigit())
