"""Runs an agent program and adds to its output what it only writes to its own record: the tokens of each request.

`codex exec` and `gemini` tell their tokens once, at the very end; a run that is killed, or that a budget should
end, tells nothing. The records of their conversations have them as they are spent. Runs as

    python -I -S followed.py codex|gemini MODEL PATIENCE PROGRAM ARGUMENT...

with stdin and stderr passed on and stdout copied, and adds whole lines:

    {"type": "huskies.begin", "model", "used": {...}}     before its first; Codex: what the conversation had used
    {"type": "huskies.usage", "request", "model", ...}    one request, with the program's own counts in `usage`
    {"type": "huskies.limits", "rate_limits": {...}}      Codex: what the provider says of the account's limits
    {"type": "huskies.gave_up", "seconds"}                it waited for the provider for so long, and was ended

Codex itself waits without end where the network is down, and as long as a provider tells it to. Otherwise this
ends as the program ended. Standard library only, and without `subprocess`: it is the child that a runner starts.
"""

import contextlib
import json
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

LOOK_SECONDS = 0.1
CHUNK = 64 * 1024
MOST_READ = 1024 * 1024  # bytes of a record per look
MOST_LINE = 64 * 1024 * 1024  # bytes of one line of a record
MOST_FILES = 1000
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WAITS = b'{"type":"error","message":"Reconnecting'

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
                    try:
                        value = json.loads(line)
                    except (ValueError, RecursionError):
                        continue
                    found += [value] if isinstance(value, dict) else []
        return found

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


class Records:
    """The records of all conversations below a folder: the session's own, and those of agents that it starts itself."""

    wanted: tuple[bytes, ...] = ()

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: dict[str, RecordFile] = {}

    def lines(self) -> list[Json]:
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)  # noqa: PTH118
                if name.endswith(".jsonl") and path not in self.files and len(self.files) < MOST_FILES:
                    self.files[path] = RecordFile(path)
        return [line for record in self.files.values() for line in record.lines(self.wanted)]

    def begin(self) -> Json:
        """What was used before this run; what the records hold so far is no news."""
        self.lines()
        return {}

    def news(self) -> list[Json]:
        raise NotImplementedError


class CodexRecords(Records):
    wanted = (b'"token_usage_record"', b'"token_count"')

    def __init__(self) -> None:
        super().__init__(os.path.join(os.environ["CODEX_HOME"], "sessions"))  # noqa: PTH118
        self.limits: object = None

    def begin(self) -> Json:
        used: object = {}
        for kind, line in self._told():
            if kind == "token_usage_record":
                used = line.get("thread_token_usage")
        return used if isinstance(used, dict) else {}

    def news(self) -> list[Json]:
        found: list[Json] = []
        for kind, line in self._told():
            if kind == "token_usage_record":
                one = {"request": line.get("response_id"), "thread": line.get("thread_id")}
                found.append({"type": "huskies.usage", **one, "usage": line.get("usage")})
            elif line.get("type") == "token_count" and line.get("rate_limits") != self.limits:
                self.limits = line.get("rate_limits")
                found.append({"type": "huskies.limits", "rate_limits": self.limits})
        return found

    def _told(self) -> list[tuple[object, Json]]:
        lines = self.lines()
        return [
            (line.get("type"), line["payload"]) for line in lines if isinstance(line.get("payload"), dict)
        ]


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


KINDS: dict[str, Callable[[], Records]] = {"codex": CodexRecords, "gemini": GeminiRecords}


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
            at_line_start = data.endswith(b"\n")
            waits = data.rstrip().rpartition(b"\n")[2].startswith(WAITS)
            waits_since = (waits_since or time.monotonic()) if waits else None
        elif (
            ready or status is not None
        ):  # closed; or it is dead, and one of its children still holds it open
            break
        elif waits_since and not gave_up and time.monotonic() - waits_since > patience:
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
    emit([{"type": "huskies.begin", "model": model, "used": records.begin()}])
    try:
        code = run(argv, records, float(patience))
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
