"""A merge without a checkout: trees in, a tree or the list of conflicts out."""

import re
from pathlib import Path
from typing import NamedTuple

from pipeline.git import names
from pipeline.git.command import GitError, git
from pipeline.git.refusals import Refused, listed

_WORDS = {
    "contents": "content",
    "distinct modes": "mode",
    "distinct types": "mode",
    "submodule": "submodules",
}


class Conflict(NamedTuple):
    """One conflicting path. `kind`: content, add/add, modify/delete, rename/delete, rename/rename,
    file/directory, binary, mode, ...; `message`: git's own sentence."""

    path: str
    kind: str
    message: str


def merge_tree(control: Path, base: str, tip: str) -> str:
    """The tree of merging `tip` into `base`. Raises Refused `conflict` with the files, or `unrelated`."""
    pair = (names.check_commit(base), names.check_commit(tip))
    done = git(
        control,
        "merge-tree",
        "--write-tree",
        "-z",
        "--messages",
        *pair,
        ok=(0, 1, 128),
        timeout=300,
    )
    words = done.stdout.decode(errors="replace").split("\0")
    if done.code == 0:
        return names.check_commit(words[0])
    if done.code == 128 and "refusing to merge unrelated histories" in done.errors:
        raise Refused("unrelated", "The work and the base branch share no history, so they cannot be merged.")
    # A code of 1 alone is no proof: only a tree id followed by conflicting paths is a conflict.
    conflicts = _conflicts(words) if done.code == 1 and re.fullmatch(r"[0-9a-f]{40,64}", words[0]) else []
    if not conflicts:
        raise GitError(["git", "merge-tree", "--write-tree", *pair], done.code, done.errors)
    paths = list(dict.fromkeys(conflict.path for conflict in conflicts))
    raise Refused(
        "conflict",
        f"The work does not merge with the base branch: conflicts in {listed(paths)}. "
        "Bring the base branch's changes into the work, then try again.",
        files=[conflict._asdict() for conflict in conflicts],
    )


def commit_tree(
    control: Path, tree: str, parents: list[str], message: str, *, author: dict[str, str], date: int
) -> str:
    """Make a commit and return its id; the same inputs give the same id, so a redo after a crash is no second
    commit.

    `author`: name and email; `date`: seconds since the epoch, for author and committer (the server).
    """
    name, email = check_person(author)
    if "\0" in message or not message.strip():
        raise names.HostileName("The commit's message is refused: it is empty or holds a NUL.")
    stamp = f"{int(date)} +0000"
    environment = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email}
    environment |= {"GIT_AUTHOR_DATE": stamp, "GIT_COMMITTER_DATE": stamp}
    arguments = ["commit-tree", names.check_commit(tree)]
    for parent in parents:
        arguments += ["-p", names.check_commit(parent)]
    text = message.encode(errors="replace")
    done = git(control, *arguments, "-F", "-", stdin=text, environment=environment)
    return names.check_commit(done.stdout.decode().strip())


def check_person(author: dict[str, str]) -> tuple[str, str]:
    """(name, email) of a commit's author; characters that would break out of the commit's header are
    dropped."""
    name, email = (
        re.sub(r"[<>\x00-\x1f\x7f]", "", str(author.get(part, ""))).strip() for part in ("name", "email")
    )
    if not name or not email:
        raise names.HostileName("The commit's author is refused: it needs a name and an e-mail address.")
    return name, email


def _conflicts(words: list[str]) -> list[Conflict]:
    """First entries `mode blob stage<TAB>path` up to an empty word, then messages: a count, that many paths,
    kind, text."""
    end = words.index("", 1) if "" in words[1:] else len(words)
    sides: dict[str, dict[str, list[str]]] = {}
    for entry in words[1:end]:
        facts, _, path = entry.partition("\t")
        mode, blob, stage = facts.split()
        sides.setdefault(path, {})[stage] = [mode, blob]
    rest = iter(words[end + 1 :])
    found: list[Conflict] = []
    for count in rest:
        if not count.strip().isdigit():
            break
        paths = [next(rest, "") for _ in range(int(count))]
        kind, message = next(rest, ""), next(rest, "").strip()
        if kind.startswith("CONFLICT") and paths:
            found.append(Conflict(paths[0], _kind(kind, message, sides.get(paths[0], {})), message))
    return found or [Conflict(path, "content", "") for path in sides]


def _kind(kind: str, message: str, sides: dict[str, list[str]]) -> str:
    ours, theirs = sides.get("2"), sides.get("3")
    if ours and theirs and ours[1] == theirs[1] and ours[0] != theirs[0]:
        return "mode"  # git calls it add/add or content, although the contents agree
    inner = re.match(r"CONFLICT \(([^)]*)\)", message) or re.match(r"CONFLICT \(([^)]*)\)", kind)
    word = inner.group(1) if inner else "content"
    return _WORDS.get(word, word)
