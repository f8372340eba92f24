"""The program of the `scripted` runtime: it plays a script and prints what it does.

A stand-in for tests, fault injection and the demo, not an AI. Runs as `python -I -S scripted_agent.py` in
the working copy, with a JSON request on stdin: {"turns": [[STEP, ...], ...], "memory": PATH}. The memory is a
small file that counts the turns of the conversation, so that a later session plays the next turn (the last
one again when there are no more). One JSON object per line goes to stdout: {"kind": KIND, "body": {...}}.

Standard library only, in one file, and without `subprocess`: it is the child that a runner starts.
"""

import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

MOST_SECONDS = 3600.0
MOST_BYTES = 1 << 34  # of one print_bytes
CHUNK = 64 * 1024
MOST_OUTPUT = 64 * 1024  # bytes of a command's output that are shown

Body = dict[str, Any]


def emit(kind: str, **body: Any) -> None:
    write_all(1, json.dumps({"kind": kind, "body": body}).encode() + b"\n")


def write_all(target: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]


class Player:
    def __init__(self, request: Body) -> None:
        self.memory = str(request["memory"])
        self.turns: list[list[Body]] = request["turns"]
        self.calls = 0
        self.held = b""
        self.waiting: list[Body] = []  # messages that came while something else was waited for

    def play(self) -> None:
        turn = self.next_turn()
        emit("started", turn=turn + 1, label="a scripted stand-in, not an AI")
        for step in self.turns[min(turn, len(self.turns) - 1)]:
            name, value = next(iter(step.items()))
            getattr(self, f"step_{name}")(value)
        emit("ended", outcome="done", text="The script's turn is over.")

    def next_turn(self) -> int:
        """How many turns came before this one; counted at the start, so that a killed turn counts too."""
        try:
            with open(self.memory, encoding="utf-8") as known:  # noqa: PTH123  (pathlib would double the start)
                before = int(json.load(known)["turns"])
        except (OSError, ValueError, KeyError, TypeError):
            before = 0
        os.makedirs(os.path.dirname(self.memory), exist_ok=True)  # noqa: PTH103, PTH120
        with open(f"{self.memory}.new", "w", encoding="utf-8") as fresh:  # noqa: PTH123
            json.dump({"turns": before + 1}, fresh)
        os.replace(f"{self.memory}.new", self.memory)  # noqa: PTH105
        return before

    # ---------------------------------------------------------------- what a coder does

    def step_say(self, text: str) -> None:
        emit("text", text=text)

    def step_think(self, text: str) -> None:
        emit("thinking", text=text)

    def step_ask(self, question: str) -> None:
        emit("permission", decision="unanswered", text=question)

    def step_request(self, value: Body) -> None:
        """Asks for leave to use a tool, and waits for the answer; with `seconds` it gives up after so long."""
        self.calls += 1
        asked, tool = f"ask-{os.getpid()}-{self.calls}", value["tool"]
        emit("permission", id=asked, tool=tool, input=value.get("input", {}), text=f"wants to use {tool}")
        until = time.monotonic() + min(float(value.get("seconds", MOST_SECONDS)), MOST_SECONDS)
        while (left := until - time.monotonic()) > 0 and select.select([0], [], [], left)[0]:
            line = read_line()
            said = json.loads(line) if line else {"answer": asked, "reason": "nobody is there"}
            if said.get("answer") == asked:
                allowed = said.get("allow") is True
                emit(
                    "text",
                    text=f"{tool} was allowed" if allowed else f"{tool} was denied: {said.get('reason')}",
                )
                return
            self.waiting.append(said)
        emit("permission_over", id=asked)

    def step_write(self, value: Body) -> None:
        self.put(value, "w")

    def step_append(self, value: Body) -> None:
        self.put(value, "a")

    def put(self, value: Body, mode: str) -> None:
        path, content = value["path"], value["content"]
        call = self.call(f"{'Write' if mode == 'w' else 'Append to'} {path}", content)
        folder = os.path.dirname(path)  # noqa: PTH120
        if folder:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        with open(path, mode, encoding="utf-8") as target:  # noqa: PTH123
            target.write(content)
        emit("tool_end", id=call, name="scripted", error=False, text="", files=[path])

    def step_read(self, path: str) -> None:
        call = self.call(f"Read {path}", "", reads=path)
        with open(path, encoding="utf-8", errors="replace") as source:  # noqa: PTH123
            emit("tool_end", id=call, name="scripted", error=False, text=source.read(MOST_OUTPUT))

    def step_open_tool(self, title: str) -> None:
        self.call(title, "")

    def step_close_tool(self, _value: object) -> None:
        emit("tool_end", id=f"call-{self.calls}", name="scripted", error=False, text="")

    def step_run(self, command: str) -> None:
        call = self.call(f"$ {command}", command)
        code, output = run(["/bin/sh", "-c", command])
        emit("tool_end", id=call, name="scripted", error=code != 0, text=output, code=code)

    def step_commit(self, message: str) -> None:
        call = self.call("git commit", message)
        code, output = run(["/bin/sh", "-c", 'git add -A && git commit -q -m "$0"', message])
        emit("tool_end", id=call, name="scripted", error=code != 0, text=output, code=code)

    def call(self, title: str, text: str, **more: str) -> str:
        self.calls += 1
        emit(
            "tool_start",
            id=f"call-{self.calls}",
            name="scripted",
            title=title.split("\n")[0][:200],
            text=text,
            **more,
        )
        return f"call-{self.calls}"

    def step_usage(self, value: Body) -> None:
        self.calls += 1
        emit("usage", request=f"request-{self.calls}", **value)

    # ---------------------------------------------------------------- time

    def step_wait_for(self, value: Body) -> None:
        """Until a file is there; the turn fails if it does not come in time."""
        deadline = time.monotonic() + min(float(value.get("timeout", 60)), MOST_SECONDS)
        while not os.path.exists(value["file"]):  # noqa: PTH110
            if time.monotonic() > deadline:
                emit("ended", outcome="crashed", text=f"{value['file']} did not appear in time.")
                sys.exit(1)
            time.sleep(0.01)

    def step_wait_told(self, seconds: float) -> None:
        """Until the server sends a message on stdin; it is said, and the turn goes on without one."""
        until = time.monotonic() + min(float(seconds), MOST_SECONDS)
        while not self.waiting and (left := until - time.monotonic()) > 0:
            if select.select([0], [], [], left)[0]:
                line = read_line()
                if not line:
                    return
                self.waiting.append(json.loads(line))
        if self.waiting:
            emit("text", text=f"I was told: {self.waiting.pop(0).get('message')}")

    def step_sleep(self, seconds: float) -> None:
        time.sleep(min(float(seconds), MOST_SECONDS))

    def step_hang(self, _value: object) -> None:
        while True:
            signal.pause()

    def step_limit(self, value: Body) -> None:
        """What a provider says of its limits, such as {"status": "rejected", "resets_at": 1795346917}."""
        emit("rate_limit", **value)

    def step_hold_memory(self, n: int) -> None:
        """A process beside this one that holds so many bytes, until both are ended."""
        pid = os.fork()
        if not pid:
            self.held = b"x" * min(int(n), MOST_BYTES)
            self.step_hang(None)
        emit("note", note="hold_memory", pid=pid)

    # ---------------------------------------------------------------- output of any kind

    def step_print(self, text: str) -> None:
        write_all(1, text.encode() + b"\n")

    def step_print_bytes(self, value: Body) -> None:
        """`n` times the character `char`, with a newline after each `line` bytes (none by default)."""
        left, target = min(int(value["n"]), MOST_BYTES), 2 if value.get("stream") == "stderr" else 1
        char, line = str(value.get("char", "x")).encode()[:1] or b"x", int(value.get("line", 0))
        unit = char * (line - 1) + b"\n" if line > 1 else char
        chunk = unit * max(1, CHUNK // len(unit))
        while left > 0:
            write_all(target, chunk[:left])
            left -= len(chunk[:left])

    def step_huge_line(self, n: int) -> None:
        """One well-formed event whose text is `n` bytes long."""
        left = min(int(n), MOST_BYTES)
        write_all(1, b'{"kind": "text", "body": {"text": "')
        while left > 0:
            write_all(1, b"x" * min(left, CHUNK))
            left -= CHUNK
        write_all(1, b'"}}\n')

    def step_bad_bytes(self, _value: object) -> None:
        write_all(
            1, b'\xff\xfe\x00\x80 not UTF-8 \x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07\n{"kind": 5}\n[1, 2\nnull\n'
        )
        write_all(2, b"\xc3\x28 on stderr\r\n")

    # ---------------------------------------------------------------- processes that do not obey

    def step_ignore_term(self, _value: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def step_daemon(self, _value: object) -> None:
        """A process in a session of its own, without our output, that ignores what is polite."""
        emit("note", note="daemon", pid=self.child(detached=True, quiet=True))

    def step_fork(self, count: int) -> None:
        emit(
            "note",
            note="fork",
            pids=[self.child(detached=False, quiet=True) for _ in range(min(int(count), 50))],
        )

    def step_hold_stdout(self, _value: object) -> None:
        """A process that keeps stdout and stderr open after we ended."""
        emit("note", note="hold_stdout", pid=self.child(detached=True, quiet=False))

    def child(self, *, detached: bool, quiet: bool) -> int:
        pid = os.fork()
        if pid:
            return pid
        if detached:
            os.setsid()
            self.step_ignore_term(None)
        if quiet:
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(nothing, number)
        self.step_hang(None)
        return 0

    # ---------------------------------------------------------------- endings

    def step_end(self, value: Body) -> None:
        """An ending of the provider's kind, such as {"outcome": "rate_limited", "until": …}."""
        emit("ended", **value)
        sys.exit(0 if value.get("outcome") == "done" else 1)

    def step_exit(self, code: int) -> None:
        sys.exit(int(code))

    def step_crash(self, number: int) -> None:
        os.kill(os.getpid(), int(number))
        self.step_hang(None)


def read_line() -> bytes:
    """One line of stdin, byte for byte, so that nothing behind it is taken along; empty at its end."""
    line = bytearray()
    while not line.endswith(b"\n") and (data := os.read(0, 1)):
        line += data
    return bytes(line)


def run(argv: list[str]) -> tuple[int, str]:
    """(exit code or minus the signal, the output's head); waits for all that writes to that output."""
    reading, writing = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writing, 1),
        (os.POSIX_SPAWN_DUP2, writing, 2),
    ]
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigmask=[])
    os.close(writing)
    kept = bytearray()
    while data := os.read(reading, CHUNK):
        kept += data[: MOST_OUTPUT - len(kept)]
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), kept.decode(errors="replace")


def main() -> None:
    # A line that nobody reads any more must not raise in the middle of a step.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    request = json.loads(read_line())
    Player(request).play()


def fail(problem: Exception) -> NoReturn:
    emit("ended", outcome="crashed", text=f"The script could not be played: {problem!r}")
    sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as problem:
        fail(problem)
