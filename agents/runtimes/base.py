"""What every runtime is: it builds a command, reads the program's lines, and judges its end.

A runtime holds no state and starts nothing. The server asks it for a `Command`, runs that under a
runner, feeds the runner's records to the runtime's parser, and asks the parser for the outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

FileOp = list[str | int]  # ["mkdir", path] and so on: done by the runner before the program starts


class Redact(Protocol):
    """Masks what is secret in a text. `cut`: something of it was lost before or after it."""

    def __call__(self, data: bytes, cut: bool = False, /) -> bytes: ...


EventKind = Literal[
    "started",
    "text",
    "thinking",
    "tool_start",
    "tool_end",
    "retry",
    "rate_limit",
    "usage",
    "permission",
    "permission_over",
    "note",
    "output",
    "ended",
]
OutcomeKind = Literal[
    "done",
    "stopped",
    "turn_limit",
    "budget",
    "rate_limited",
    "overloaded",
    "auth",
    "billing",
    "bad_model",
    "context_full",
    "config",
    "crashed",
    "lost",
    "hung",
    "wall_limit",
    "output_limit",
]
"""What a parser may say: those of agents.states.Outcome that a program's output and exit can tell. The rest only the server knows."""


class LaunchRefused(ValueError):
    """The session cannot be launched as its agent is configured; the message says what to change."""


class ProgramMissing(LaunchRefused):
    """The runtime's program is not on this host: no session of it can begin here."""


@dataclass(frozen=True)
class Credential:
    """What the program logs in with. `value` is empty for the host's own log-in."""

    kind: Literal["api_key", "oauth_token", "host_login"]
    value: str = field(default="", repr=False)
    base_url: str | None = None


@dataclass(frozen=True)
class GitIdentity:
    name: str
    email: str


@dataclass(frozen=True)
class Launch:
    """Everything a runtime may know of the session that it builds a command for.

    `copy` is the private working copy and the program's working directory; `home`, `tmp` and `config`
    are the session's private folders. `conversation` is a UUID; with `resume` the program goes on
    with that conversation. `agent_config` is the agent's entry of the project file. `level` is the
    confinement that the command will be run in.
    """

    session_key: str
    copy: Path
    home: Path
    tmp: Path
    config: Path
    prompt: str
    conversation: str
    resume: bool
    model: str | None
    agent_config: Mapping[str, Any]
    level: str
    credential: Credential | None
    story_number: int
    base_branch: str
    git_identity: GitIdentity
    story_text: str = ""

    def git_environment(self) -> dict[str, str]:
        who = self.git_identity
        return {
            "GIT_AUTHOR_NAME": who.name,
            "GIT_AUTHOR_EMAIL": who.email,
            "GIT_COMMITTER_NAME": who.name,
            "GIT_COMMITTER_EMAIL": who.email,
            # Nobody is there to write in an editor or to answer a question.
            "GIT_EDITOR": "true",
            "GIT_SEQUENCE_EDITOR": "true",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_PAGER": "cat",
        }


@dataclass(frozen=True)
class Command:
    """What the runner is to run: `argv` without a confinement prefix, and the complete environment.

    `stdin` is written and closed (unless `keep_stdin`). `files` are done first. `readable` and
    `writable` are what the program needs besides the copy and the session's own folders. `interrupt` is
    the line that ends its turn. With `turn_ends` the runner closes a kept stdin after a line of JSON with
    these words at its top, unless another turn (`turn_begins`) takes up what was said meanwhile.
    """

    argv: list[str]
    env: dict[str, str] = field(repr=False)  # holds the key
    stdin: str
    keep_stdin: bool = False
    interrupt: str | None = None
    turn_begins: Mapping[str, str] = field(default_factory=dict)
    turn_ends: Mapping[str, str] = field(default_factory=dict)
    files: list[FileOp] = field(default_factory=list)
    readable: list[Path] = field(default_factory=list)
    writable: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Decision:
    """The answer to a program's permission request. `reason` is told to the agent when it is denied."""

    allow: bool
    scope: Literal["once", "session"] = "once"
    reason: str = ""


@dataclass(frozen=True)
class Found:
    """What a host has of a program. `logged_in` is None where the program needs no log-in."""

    path: Path | None
    version: str | None
    logged_in: bool | None
    remedy: str


@dataclass(frozen=True)
class Trial:
    """How the pre-flight tries a program against the stand-in for its provider.

    `path` ends the base URL as the program wants it; `entry` is what an agent's entry needs besides `base_url`.
    """

    path: str = ""
    entry: Mapping[str, Any] = field(default_factory=dict)


class Event(NamedTuple):
    """One thing that happened; `body` is JSON, safe to store, and at most some 20 KiB.

    `permission`: the program waits for an answer; body {"id", "tool", "input", "text"} and perhaps "keep" (see
    `Runtime.answer`); with "decision" in it, it was refused already and nobody is asked.
    `permission_over`: it no longer waits for that one; body {"id"}.
    """

    kind: EventKind
    body: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a session ended. `reason` is a sentence with the remedy; `until` is epoch seconds.

    `detail` is a word for code that must tell cases of one kind apart: `conversation_missing` and `conversation_in_use` (the next
    session begins a new conversation), `program` (it did not get to its first event: the program is unfit on this host).
    """

    kind: OutcomeKind
    reason: str
    until: int | None = None
    detail: str = ""


class Record(Protocol):
    """What a parser reads of a runner's log record (`pipeline.processes.logfile.Record`)."""

    @property
    def stream(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def data(self) -> bytes: ...


class Parser(Protocol):
    def feed(self, record: Record, masked: bool = False) -> list[Event]:
        """`masked`: it is known that nothing within the record has to be masked."""
        ...

    def state(self) -> dict[str, Any]: ...
    def waiting(self) -> int: ...
    def state_without_lines(self) -> dict[str, Any]: ...
    def take_up(self, records: Iterable[Record]) -> None: ...
    def outcome(self, exit: Mapping[str, Any] | None) -> Outcome: ...


class Runtime(Protocol):
    """One agent program.

    `label` says honestly what it is; it is shown wherever the agent is. `keys` are the keys of an agent's
    entry that only this runtime has a use for. `provider` is the origin that it talks to when no base URL
    is named, so where its credential goes; empty if there is none. `tested` are the versions that the tests ran with,
    as a specifier (PEP 440) such as ">=2.1.197,<2.2"; "" = any. `trial` is None where the pre-flight has no program of
    its own to try (each agent names one, or it is ours). One that also has `interrupts` and means it can end its turn
    and go on with other words in the same session.
    """

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def keys(self) -> tuple[str, ...]: ...
    @property
    def provider(self) -> str: ...
    @property
    def tested(self) -> str: ...
    @property
    def trial(self) -> Trial | None: ...
    def command(self, launch: Launch) -> Command: ...
    def carry(self, previous: Path, launch: Launch) -> list[FileOp]:
        """File operations that bring a conversation from the config folder of an earlier session.

        Empty if it is not there (or not safe to copy): then launch with `resume` off.
        """
        ...

    def message(self, text: str) -> str | None:
        """The line for the running program's stdin that gives it a message; None where it takes none (its `Command` closes stdin)."""
        ...

    def answer(self, request: Mapping[str, Any], decision: Decision) -> str | None:
        """The line for its stdin that answers a permission request; None where it never asks.

        `request` is what is stored of the `permission` event: its `input` is masked and shortened, so never send it
        back. What the answer needs (option ids) the parser puts into the body's `keep`, a small mapping.
        """
        ...

    def parser(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> Parser: ...
    def find(self) -> Found:
        """What this host has; may start the program to ask its version."""
        ...

    def program(self) -> Path | None:
        """The file that would be started, looked for again at each call, without starting anything."""
        ...
