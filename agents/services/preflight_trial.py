"""The child of a pre-flight: starts the stand-in, then the program that is tried, confined, and reports what came of it.

    python -I preflight_trial.py ORDER

ORDER is a file of JSON: {"runtime", "word", "secret", "key", "turns", "escape", "argv", "env", "cwd", "files", "place", "copy", "canary", "planted",
"patience", "report"}. `place` is the address that the command was built with before the stand-in had one; it is replaced everywhere. The
program inherits stdin, stdout and stderr, so that its log is as a session's; this ends as the program ended. What it found stands in the
file `report`, written anew at each step: {"found", "asked", "problems", "left", "code", "wrote", "ran", "read", "planted", "tried",
"seconds"}.

It runs with the server's Python and packages, but without Django; it is ours, and so not confined.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agents.runtimes import get_runtime, programs
from agents.standin import StandIn
from pipeline.processes.runner_files import carry_out

Json = dict[str, Any]


class Trial:
    def __init__(self, order: Json) -> None:
        self.order = order
        self.report: Json = {}
        self.began = time.monotonic()

    def run(self) -> int:
        """The program's exit code, or minus the signal that ended it."""
        order = self.order
        scenario = {"turns": order["turns"], "api_key": order["key"], "chunk_size": 200}
        with StandIn({"scenarios": {order["word"]: scenario}}) as standin:
            try:
                return self.play(standin)
            finally:
                self.look(standin)

    def play(self, standin: StandIn) -> int:
        order = self.order
        programs.VERSION_TIMEOUT = float(order["patience"])
        found = get_runtime(order["runtime"]).find()
        self.tell(found={"version": found.version, "logged_in": found.logged_in, "remedy": found.remedy})
        here = standin.url(order["word"]).removeprefix("http://")
        words = json.dumps([order["argv"], order["env"], order["files"]]).replace(order["place"], here)
        argv, env, files = json.loads(words)
        for operation in files:
            for _ in carry_out(operation):
                pass
        os.chdir(order["cwd"])
        if order["escape"]:
            run(order["escape"], env, quiet=True)
        code = run(argv, env)
        self.tell(code=code)
        return code

    def look(self, standin: StandIn) -> None:
        """What the program did, and what it should not have been able to do."""
        order, copy = self.order, Path(self.order["copy"])
        self.tell(
            asked=len(standin.requests("model")),
            problems=standin.problems,
            left=standin.left(order["word"]),
            wrote=holds(copy / "wrote.txt", order["word"]),
            ran=holds(copy / "ran.txt", order["word"]),
            read=holds(copy / "read.txt", order["secret"]),
            planted=Path(order["planted"]).exists(),
            tried=(copy / "read.txt").exists() or not order["escape"],
        )

    def tell(self, **more: Any) -> None:
        self.report |= {**more, "seconds": round(time.monotonic() - self.began, 2)}
        path = Path(self.order["report"])
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(self.report))
        fresh.replace(path)


def run(argv: list[str], env: dict[str, str], *, quiet: bool = False) -> int:
    """The exit code, or minus the signal that ended it. `quiet`: without our stdin, stdout and stderr, which are the program's."""
    closed = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)] if quiet else []
    signals = [signal.SIGTERM, signal.SIGINT]
    pid = os.posix_spawnp(argv[0], argv, env, file_actions=closed, setsigmask=[], setsigdef=signals)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def holds(path: Path, word: str) -> bool:
    """Whether a file of the copy holds the word; the program wrote it, so it may be anything."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with contextlib.suppress(OSError):
            return word.encode() in os.read(opened, 65536)
        return False
    finally:
        os.close(opened)


def stopped(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)  # by way of `finally`: what is known until now is reported


def main(path: str) -> NoReturn:
    signal.signal(signal.SIGTERM, stopped)
    code = Trial(json.loads(Path(path).read_text())).run()
    if code < 0:  # ended by a signal: so does this
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
