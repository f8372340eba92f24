"""Runs an agent program and adds to its output what it only writes to its own record: the tokens of each request.

`gemini` tells its tokens once, at the very end; a run that is killed, or that a budget should end, tells nothing.
`qwen` and `opencode` are silent while they try again. Their records have it all. Runs as

    python -I -S followed.py gemini|qwen|opencode MODEL PATIENCE PROGRAM ARGUMENT...

with stdin and stderr passed on and stdout copied, and adds whole lines:

    {"type": "huskies.begin", "model"}                    before its first
    {"type": "huskies.usage", "request", "model", ...}    one request, with the program's own counts in `usage`
    {"type": "huskies.retry", "status", "error"}          Qwen, opencode: the provider refused, and it tries again
    {"type": "huskies.gave_up", "seconds"}                it waited for the provider for so long, and was ended

Qwen and opencode wait as long as a provider tells them to.
Otherwise this ends as the program ended. Qwen and opencode know conversations by their folders: the one that was
carried over is first moved to this folder.
Standard library only, and without `subprocess`: it is the child that a runner starts.
"""

import contextlib
import json
import os
import select
import signal
import stat
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

LOOK_SECONDS = 0.1
CHUNK = 64 * 1024
MOST_READ = 1024 * 1024  # bytes of a record per look
MOST_LINE = 64 * 1024 * 1024  # bytes of one line of a record
MOST_FILES = 1000
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MISSING = "The conversation to go on with is not there"

Json = dict[str, Any]


class RecordFile:
    """A growing file of JSON lines, read as far as whole lines go. Its writer may be anyone: nothing of it is trusted."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.at = 0
        self.rest = b""

    def lines(self, wanted: tuple[bytes, ...]) -> list[Json]:
        """The lines that came since the last call and hold one of these words."""
        found: list[Json] = []
        while data := self._more():
            *whole, self.rest = (self.rest + data).split(b"\n")
            if len(self.rest) > MOST_LINE:
                self.rest = b""
            for line in whole:
                if any(word in line for word in wanted):
                    found += self.read(line)
        return found

    def read(self, line: bytes) -> list[Json]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return []
        return [value] if isinstance(value, dict) else []

    def _more(self) -> bytes:
        try:
            opened = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                return b""
            data = os.pread(opened, MOST_READ, self.at)
        finally:
            os.close(opened)
        self.at += len(data)
        return data


class Records(ABC):
    """The records of all conversations below a folder: the session's own, and those of agents that it starts itself."""

    wanted: tuple[bytes, ...] = ()
    ending = ".jsonl"
    file: type[RecordFile] = RecordFile
    waits = False  # by the record the program waits for its provider
    until_heard = False  # and does so until it prints something

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: dict[str, RecordFile] = {}

    def lines(self) -> list[Json]:
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)  # noqa: PTH118
                if name.endswith(self.ending) and path not in self.files and len(self.files) < MOST_FILES:
                    self.files[path] = self.file(path)
        return [line for record in self.files.values() for line in record.lines(self.wanted)]

    def begin(self) -> None:
        """What the records hold so far is no news."""
        self.lines()

    def arguments(self) -> list[str]:
        """More for the program, once the conversation that was carried over is this folder's.

        Raises LookupError (a sentence) where the program must not begin.
        """
        return []

    @abstractmethod
    def news(self) -> list[Json]:
        """Our own lines for what came since the last call."""


class GeminiRecords(Records):
    wanted = (b'"tokens"',)

    def __init__(self) -> None:
        # Beside it the agent keeps files of its own, any number of them.
        super().__init__(os.path.join(os.environ["GEMINI_CLI_HOME"], ".gemini/tmp/story/chats"))  # noqa: PTH118
        self.last: object = None

    def news(self) -> list[Json]:
        found: list[Json] = []
        for line in self.lines():
            # A message is written again with the results of its tools.
            if line.get("type") == "gemini" and line.get("id") != self.last:
                self.last = line.get("id")
                one = {"request": self.last, "model": line.get("model"), "usage": line.get("tokens")}
                found.append({"type": "huskies.usage", **one})
        return found


class QwenRecords(Records):
    wanted = (b'"ui_telemetry"',)

    def __init__(self) -> None:
        super().__init__(os.path.join(os.environ["QWEN_HOME"], "projects"))  # noqa: PTH118

    def arguments(self) -> list[str]:
        for path in self.files:
            with open(path, "rb+") as record:  # noqa: PTH123
                lines = [line for one in record.read().splitlines() for line in self.files[path].read(one)]
                here = {"cwd": os.getcwd()}  # noqa: PTH109
                moved = b"".join(json.dumps(line | here).encode() + b"\n" for line in lines)
                record.seek(0)
                record.write(moved)
                record.truncate()
            self.files[path].at = len(moved)
        return []

    def news(self) -> list[Json]:
        found: list[Json] = []
        for line in self.lines():
            payload = line.get("systemPayload")
            told = payload.get("uiEvent") if isinstance(payload, dict) else None
            name = told.get("event.name") if isinstance(told, dict) else None
            if not isinstance(told, dict) or name not in ("qwen-code.api_response", "qwen-code.api_error"):
                continue
            self.waits = name == "qwen-code.api_error"
            if self.waits:
                one = {"status": told.get("status_code"), "error": told.get("error_message")}
                found.append({"type": "huskies.retry", **one})
            else:
                usage = {key: value for key, value in told.items() if str(key).endswith("_token_count")}
                one = {"request": told.get("response_id"), "model": told.get("model"), "usage": usage}
                found.append({"type": "huskies.usage", **one})
        return found


class LogFile(RecordFile):
    def read(self, line: bytes) -> list[Json]:
        return [{"error": line.partition(b" error.error=")[2].decode("utf-8", "replace")[:2000].strip('"')}]


class OpencodeRecords(Records):
    wanted = (b'message="stream error"',)
    ending = ".log"
    file = LogFile
    until_heard = True

    def __init__(self) -> None:
        self.folder = os.path.join(os.environ["XDG_DATA_HOME"], "opencode")  # noqa: PTH118
        super().__init__(os.path.join(self.folder, "log"))  # noqa: PTH118

    def arguments(self) -> list[str]:
        """It chooses the ids itself, so the conversation is named here."""
        plugins = [name for name in (".opencode/plugin", ".opencode/plugins") if os.path.lexists(name)]
        if plugins:  # it has no switch that leaves them aside
            raise LookupError(
                f"The repository brings plugins of opencode along in {plugins[0]}, which it would run."
            )
        place = os.path.join(self.folder, "opencode.db")  # noqa: PTH118
        if not os.path.exists(place):  # noqa: PTH110
            return []
        import sqlite3  # here alone: the other programs start without it

        try:
            with contextlib.closing(sqlite3.connect(place)) as database, database:
                found = database.execute(
                    "SELECT id FROM session WHERE parent_id IS NULL ORDER BY time_created DESC LIMIT 1"
                ).fetchone()
                if found is None:
                    raise LookupError(f"{MISSING}: its database holds none.")
                here = os.getcwd()  # noqa: PTH109
                database.execute("UPDATE session SET directory = ?", [here])
                database.execute("UPDATE project SET worktree = ?, sandboxes = '[]'", [here])
        except sqlite3.Error as problem:
            raise LookupError(f"{MISSING}: {problem}.") from None
        return [f"--session={found[0]}"]

    def news(self) -> list[Json]:
        found = [{"type": "huskies.retry", "status": None, **line} for line in self.lines()]
        self.waits = self.waits or bool(found)
        return found


KINDS: dict[str, Callable[[], Records]] = {
    "gemini": GeminiRecords,
    "qwen": QwenRecords,
    "opencode": OpencodeRecords,
}


def emit(lines: list[Json]) -> None:
    for line in lines:
        write_all(json.dumps(line).encode() + b"\n")


def write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def run(argv: list[str], records: Records, patience: float) -> int:
    """The exit code, or minus the signal that ended it; 1 if it waited for longer than `patience` seconds."""
    reading, writing = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigmask=[])
    os.close(writing)
    status: int | None = None

    def pass_on(number: int, _frame: object) -> None:
        if status is None:  # not reaped yet, so the pid is still its own
            os.kill(pid, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    at_line_start = True
    waits_since: float | None = None
    gave_up = False
    while True:
        if status is None:
            done, seen = os.waitpid(pid, os.WNOHANG)
            status = seen if done else None
        ready = select.select([reading], [], [], LOOK_SECONDS if status is None else 0)[0]
        if at_line_start:
            emit(records.news())
        data = os.read(reading, CHUNK) if ready else b""
        if data:
            write_all(data)
            records.waits = records.waits and not records.until_heard
            at_line_start = data.endswith(b"\n")
        elif (
            ready or status is not None
        ):  # closed; or it is dead, and one of its children still holds it open
            break
        waits_since = (waits_since or time.monotonic()) if records.waits else None
        if waits_since and not gave_up and time.monotonic() - waits_since > patience:
            gave_up = True
            os.kill(pid, signal.SIGKILL)
    if status is None:
        _, status = os.waitpid(pid, 0)
    if not at_line_start:
        write_all(b"\n")
    emit(records.news())
    if gave_up:
        emit([{"type": "huskies.gave_up", "seconds": patience}])
        return 1
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    kind, model, patience, *argv = sys.argv[1:]
    records = KINDS[kind]()
    records.begin()
    emit([{"type": "huskies.begin", "model": model}])
    try:
        code = run([*argv, *records.arguments()], records, float(patience))
    except LookupError as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
    except OSError as problem:
        print(f"{argv[0]} could not be started: {problem}", file=sys.stderr)
        sys.exit(1)
    if code < 0:  # ended by a signal: so does this
        with contextlib.suppress(OSError):  # SIGKILL has no handler to take back
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
