"""The runner's order, as it came on stdin: checked once, so that the loop need not."""

VERSION = 1
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
LEASE = 86400.0  # seconds a runner goes on when no server renews its lease
LOG_BYTES = 50_000_000

_FILE_WORDS = {"mkdir": 2, "write": 4, "copy": 3, "rename": 3, "remove": 2, "reserve": 2}
_NUMBER = (int, float)


class SpecError(ValueError):
    """The runner was given an order that it cannot carry out."""


def _fail(what: str) -> SpecError:
    return SpecError(f"The order for this process cannot be carried out: {what}.")


def _dict(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _fail(f"{what} is not an object")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise _fail(f"{what} is not text")
    return value


def _maybe_text(value: object, what: str) -> str | None:
    return None if value is None else _text(value, what)


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        raise _fail(f"{what} is not a list")
    return value


def _seconds(value: object, what: str) -> float | None:
    if value is None:
        return None
    # The upper bound keeps the wait in poll's 32 bits of milliseconds; `>=` also refuses NaN.
    if isinstance(value, bool) or not isinstance(value, _NUMBER) or not 0 <= value <= 2_000_000:
        raise _fail(f"{what} is not a number of seconds between 0 and 2,000,000")
    return float(value)


def _count(value: object, what: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _fail(f"{what} is not a whole number of at least 0")
    return value


class Limits:
    """Bounds of one run. Times in seconds, `fsize` (of one file) in bytes, None = none; `nice`: what the main step adds to its niceness."""

    __slots__ = (
        "fsize",
        "grace",
        "keep_ends",
        "lease",
        "log_bytes",
        "nice",
        "no_new_privs",
        "nofile",
        "nproc",
        "silence",
        "wall",
    )

    def __init__(self, value: object) -> None:
        raw = _dict(value, "limits")
        log_bytes = _count(raw.get("log_bytes"), "limits.log_bytes")
        on_cap = raw.get("on_cap", "stop")
        if on_cap not in ("stop", "keep_ends"):
            raise _fail("limits.on_cap is neither 'stop' nor 'keep_ends'")
        grace = _seconds(raw.get("grace"), "limits.grace")
        lease = _seconds(raw.get("lease"), "limits.lease")
        self.log_bytes = LOG_BYTES if log_bytes is None else log_bytes
        self.keep_ends = on_cap == "keep_ends"
        self.wall = _seconds(raw.get("wall"), "limits.wall")
        self.silence = _seconds(raw.get("silence"), "limits.silence")
        self.lease = LEASE if lease is None else lease
        self.grace = GRACE if grace is None else grace
        self.nofile = _count(raw.get("nofile"), "limits.nofile")
        self.nproc = _count(raw.get("nproc"), "limits.nproc")
        self.fsize = _count(raw.get("fsize"), "limits.fsize")
        self.nice = _count(raw.get("nice"), "limits.nice")
        self.no_new_privs = raw.get("no_new_privs") is True


class Step:
    """One step: a list of file operations (`files`), a program (`argv`), or a chore of ours by its name, done in a fork of the runner.

    A `helped` one waits until the helpers are ready.
    """

    __slots__ = (
        "argv",
        "chore",
        "cwd",
        "env",
        "files",
        "helped",
        "interrupt",
        "keep_stdin",
        "main",
        "name",
        "optional",
        "stdin",
        "timeout",
        "turn_begins",
        "turn_ends",
    )

    def __init__(self, value: object, marker: dict[str, str]) -> None:
        raw = _dict(value, "a step")
        self.name = name = _text(raw.get("name"), "the name of a step")
        self.files = (
            None
            if raw.get("files") is None
            else [_file(op, name) for op in _list(raw["files"], f"{name}.files")]
        )
        self.argv = [
            _text(word, f"a word of {name}.argv") for word in _list(raw.get("argv", []), f"{name}.argv")
        ]
        self.chore = _text(raw.get("chore", ""), f"{name}.chore")
        if bool(self.argv) + bool(self.chore) + (self.files is not None) != 1:
            raise _fail(f"step {name} needs one of a program, a chore and files")
        self.cwd = _text(raw.get("cwd", "/"), f"{name}.cwd")
        env = _dict(raw.get("env", {}), f"{name}.env")
        self.env = {key: _text(item, f"{key} in {name}.env") for key, item in env.items()} | marker
        for word in (*self.argv, self.cwd, *self.env, *self.env.values()):
            if "\0" in word:
                raise _fail(f"step {name} has a NUL character in its program, folder or environment")
        if any(not key or "=" in key for key in self.env):
            raise _fail(f"{name}.env has a name that is empty or holds '='")
        self.stdin = _maybe_text(raw.get("stdin"), f"{name}.stdin")
        self.interrupt = _maybe_text(raw.get("interrupt"), f"{name}.interrupt")
        self.keep_stdin = raw.get("keep_stdin") is True
        self.turn_begins = _pairs(raw.get("turn_begins"), f"{name}.turn_begins")
        self.turn_ends = _pairs(raw.get("turn_ends"), f"{name}.turn_ends")
        self.timeout = _seconds(raw.get("timeout"), f"{name}.timeout")
        self.main = raw.get("main") is True
        self.optional = raw.get("optional") is True
        self.helped = raw.get("helped") is True


def _pairs(value: object, what: str) -> dict[str, str]:
    """What a line of JSON must say to count: at least one word, else it never does."""
    return {key: _text(item, what) for key, item in _dict({} if value is None else value, what).items()}


def _file(value: object, step: str) -> list[object]:
    operation = _list(value, f"a file operation of {step}")
    word = operation[0] if operation else None
    if not isinstance(word, str) or _FILE_WORDS.get(word) != len(operation):
        raise _fail(f"{step} has a file operation {word!r} that is unknown or has the wrong number of values")
    texts = operation[1:3]
    if not all(isinstance(text, str) for text in texts):
        raise _fail(f"the file operation {word} of {step} has a value that is not text")
    paths = texts[:1] if word == "write" else texts
    for path in paths:
        # The runner stands in its run folder: a relative path would quietly land among its own files.
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise _fail(f"the file operation {word} of {step} has a path that is not absolute: {path!r}")
    if word == "write" and (not isinstance(operation[3], int) or not 0 <= operation[3] <= 0o7777):
        raise _fail(f"the mode of {operation[1]} in {step} is not a file mode")
    return operation


class Spec:
    """The whole order. Raises SpecError with a sentence."""

    __slots__ = ("helpers", "key", "limits", "steps")

    def __init__(self, value: object) -> None:
        raw = _dict(value, "it")
        if raw.get("version") != VERSION:
            raise _fail(f"its version is {raw.get('version')!r} and this runner speaks version {VERSION}")
        self.key = _text(raw.get("key"), "its key")
        marker = _dict(raw.get("marker", {}), "its marker")
        words = {name: _text(item, f"the marker {name}") for name, item in marker.items()}
        self.limits = Limits(raw.get("limits", {}))
        self.steps = [Step(step, words) for step in _list(raw.get("steps"), "its list of steps")]
        if not self.steps:
            raise _fail("it has no steps")
        # Programs that live beside the steps, from before the first to after the last one; their stdin is their order.
        self.helpers = [Step(one, words) for one in _list(raw.get("helpers", []), "its list of helpers")]
        if any(one.files is not None or one.stdin is None for one in self.helpers):
            raise _fail("a helper is no program with an order on its stdin")
