"""Runs Codex and adds to its output what it only writes to its own record: the tokens of each request.

`codex exec --json` tells its tokens once, at the very end, summed over the whole conversation; a run that is
killed, or that a budget should end, tells nothing. The record of the conversation in CODEX_HOME has them as
they are spent. Runs as `python -I -S codex_agent.py CODEX ARGUMENT...`, with stdin and stderr passed on and
stdout copied, and adds whole lines:

    {"type": "huskies.begin", "thread_token_usage": {...}}   what the conversation had used before this run
    {"type": "huskies.usage", "response_id", "usage": {...}} one request
    {"type": "huskies.limits", "rate_limits": {...}}         what the provider says of the account's limits
    {"type": "huskies.gave_up", "seconds"}                   it waited for the provider for so long, and was ended

Codex itself waits without end where the network is down, and as long as a provider tells it to. Otherwise this
ends as Codex ended. Standard library only, and without `subprocess`: it is the child that a runner starts.
"""

import json
import os
import select
import signal
import stat
import sys
import time
from typing import Any

LOOK_SECONDS = 0.1
CHUNK = 64 * 1024
MOST_READ = 1024 * 1024  # bytes of the record per look
MOST_LINE = 64 * 1024 * 1024  # bytes of one line of the record
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WAITS = b'{"type":"error","message":"Reconnecting'
WANTED = (b'"token_usage_record"', b'"token_count"')

Json = dict[str, Any]


class RecordFile:
    """A growing file of JSON lines, read as far as whole lines go. Its writer may be anyone: nothing of it is trusted."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.at = 0
        self.rest = b""

    def lines(self) -> list[Json]:
        """The lines that came since the last call and may be of use."""
        try:
            opened = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return []
        try:
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                return []
            data = os.pread(opened, MOST_READ, self.at)
        finally:
            os.close(opened)
        self.at += len(data)
        *whole, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > MOST_LINE:
            self.rest = b""
        found = []
        for line in whole:
            if any(word in line for word in WANTED):
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(value, dict) and isinstance(value.get("payload"), dict):
                    found.append({"kind": value.get("type"), **value["payload"]})
        return found

    def all_lines(self) -> list[Json]:
        found: list[Json] = []
        before = -1
        while self.at != before:
            before = self.at
            found += self.lines()
        return found


class Records:
    """The records of all conversations in CODEX_HOME: one, and those of agents that it starts itself."""

    def __init__(self, home: str) -> None:
        self.root = os.path.join(home, "sessions")  # noqa: PTH118
        self.files: dict[str, RecordFile] = {}
        self.limits: object = None

    def find(self) -> None:
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)  # noqa: PTH118
                if name.endswith(".jsonl") and path not in self.files and len(self.files) < 1000:
                    self.files[path] = RecordFile(path)

    def begin(self, model: str) -> Json:
        self.find()
        used: object = {}
        for record in self.files.values():
            for line in record.all_lines():
                if line["kind"] == "token_usage_record":
                    used = line.get("thread_token_usage")
        return {"type": "huskies.begin", "model": model, "thread_token_usage": used}

    def news(self) -> list[Json]:
        self.find()
        found: list[Json] = []
        for record in self.files.values():
            for line in record.all_lines():
                if line["kind"] == "token_usage_record":
                    one = {name: line.get(name) for name in ("response_id", "thread_id", "usage")}
                    found.append({"type": "huskies.usage", **one})
                elif line.get("type") == "token_count" and line.get("rate_limits") != self.limits:
                    self.limits = line.get("rate_limits")
                    found.append({"type": "huskies.limits", "rate_limits": self.limits})
        return found


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
    for number in PASSED_ON:
        signal.signal(number, lambda given, _frame: os.kill(pid, given))
    at_line_start, status = True, None
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
    records = Records(os.environ["CODEX_HOME"])
    emit([records.begin(sys.argv[1])])
    try:
        code = run(sys.argv[3:], records, float(sys.argv[2]))
    except OSError as problem:
        print(f"Codex could not be started: {problem}", file=sys.stderr)
        sys.exit(1)
    if code < 0:  # ended by a signal: so does this
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
