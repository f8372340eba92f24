"""Names that reach git's command line, checked before they do.

Git reads a value that begins with a dash as an option, and `git check-ref-format` accepts `-x`, `$(id)`,
`HEAD` and 300 characters: so every value that comes from a person, an agent or a remote passes one of these
functions first."""

import re
from pathlib import Path
from typing import NoReturn

_KEY = re.compile(r"[0-9a-f]{20}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FORBIDDEN_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_STORY_BRANCH = re.compile(r"huskies/story-[1-9][0-9]{0,8}")
_BIDI_AND_LINES = re.compile(r"[\u0080-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
MAX_REF_BYTES = 200

SESSIONS = "refs/huskies/sessions/"
BASES = "refs/huskies/bases/"
MERGES = "refs/huskies/merges/"
RECOVERED = "refs/huskies/recovered/"
SNAPSHOTS = "refs/huskies/snapshots/"
UPSTREAM = "refs/huskies/upstream/"
HEADS = "refs/heads/"


class HostileName(ValueError):
    """A value that must not reach git's command line."""


def check_text(value: str, what: str) -> str:
    """`value`, or HostileName when it is empty, begins with a dash, or holds NUL or a line break."""
    if not isinstance(value, str) or not value:
        _refuse(value, what, "it is empty")
    if value.startswith("-"):
        _refuse(value, what, "it begins with a dash, which git would read as an option")
    if "\0" in value or "\n" in value or "\r" in value:
        _refuse(value, what, "it holds a NUL or a line break")
    if any("\ud800" <= character <= "\udfff" for character in value):
        _refuse(value, what, "it is not valid text")
    return value


def check_key(value: str) -> str:
    """A random key of a project, session, gate run or merge: 20 lower-case hexadecimal characters."""
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        _refuse(value, "key", "a key is 20 characters of 0-9 and a-f")
    return value


def check_commit(value: str) -> str:
    """A full object id, SHA-1 or SHA-256. Short ids and expressions such as `main~1` are refused."""
    if not isinstance(value, str) or not _COMMIT.fullmatch(value):
        _refuse(value, "commit id", "an id is 40 or 64 characters of 0-9 and a-f")
    return value


def check_ref(value: str) -> str:
    """A full ref name such as `refs/heads/main`, by the rules of gitrevisions and ours on length and bidi
    marks."""
    check_text(value, "ref")
    parts = value.split("/")
    if not value.startswith("refs/") or len(parts) < 3:
        _refuse(value, "ref", "a full name begins with refs/ and has three parts")
    if _FORBIDDEN_IN_REF.search(value) or _BIDI_AND_LINES.search(value):
        _refuse(value, "ref", "it holds characters that git or a reader cannot tell apart")
    if any(not part or part.startswith(".") or part.endswith((".", ".lock")) for part in parts):
        _refuse(value, "ref", "a part of it is empty, begins or ends with a dot, or ends with .lock")
    if len(value.encode()) > MAX_REF_BYTES:
        _refuse(value, "ref", f"it is longer than {MAX_REF_BYTES} bytes")
    return value


def check_branch(value: str) -> str:
    """A branch of the project, chosen by its people: `main`, `release/1.0`."""
    check_text(value, "branch")
    if value in {"HEAD", "@"} or value.startswith("refs/"):
        _refuse(value, "branch", "the name means something else to git")
    if any(part.startswith("-") for part in value.split("/")):
        _refuse(value, "branch", "a part of it begins with a dash")
    check_ref(HEADS + value)
    return value


def check_story_branch(value: str) -> str:
    """A branch that the server made from a story's number: `huskies/story-42`."""
    if not isinstance(value, str) or not _STORY_BRANCH.fullmatch(value):
        _refuse(value, "story's branch", "it must read huskies/story-NUMBER")
    return value


def check_path(value: str) -> str:
    """A path inside a tree object: relative, without `..`, `.git` or empty parts."""
    check_text(value, "path")
    parts = value.rstrip("/").split("/")
    if any(part in {"", ".", ".."} or part.lower() == ".git" for part in parts):
        _refuse(value, "path", "it must lead from the repository's root down to a file")
    return value


def check_folder(value: str | Path) -> Path:
    """An absolute folder of this machine, without line breaks (git writes some of them into its own
    files)."""
    text = str(value)
    check_text(text, "folder")
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts:
        _refuse(text, "folder", "it must be an absolute path without ..")
    return path


def story_branch(number: int) -> str:
    """The branch of a story: made from its number, never from anything a person typed."""
    return check_story_branch(f"huskies/story-{number}")


def session_ref(key: str) -> str:
    """The ref at which a session's work is kept."""
    return SESSIONS + check_key(key)


def snapshot_ref(key: str) -> str:
    """The ref at which the files of a running session were kept, until its work is."""
    return SNAPSHOTS + check_key(key)


def base_pin(key: str) -> str:
    """The ref that keeps a working copy's base alive from before the copy exists until it is deleted."""
    return BASES + check_key(key)


def merge_ref(key: str) -> str:
    """The ref at which a merge's candidate waits."""
    return MERGES + check_key(key)


def upstream_ref(branch: str) -> str:
    """Where the control repository notes what it last saw of the project's own branch."""
    return check_ref(UPSTREAM + check_branch(branch))


def branch_ref(branch: str) -> str:
    """The full name of a branch."""
    return HEADS + check_branch(branch)


def _refuse(value: object, what: str, reason: str) -> NoReturn:
    raise HostileName(f"The {what} {str(value)[:80]!a} is refused: {reason}.")
