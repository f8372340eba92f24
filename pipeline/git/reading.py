"""Questions to the control repository, for pages and decisions. All answers come from objects, never from a
disk's files."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline.git import names
from pipeline.git.command import git

_TREE_DIFF = ("diff-tree", "-r", "--no-ext-diff", "--no-textconv", "--no-color")


class Diff(NamedTuple):
    """A unified diff as text; `cut`: there was more than the caller had room for."""

    text: str
    cut: bool


class ChangedFile(NamedTuple):
    """One changed path. `status`: A, M, D, R, C or T. `added`, `deleted`: lines, None for a binary file."""

    path: str
    old_path: str | None
    status: str
    added: int | None
    deleted: int | None
    old_mode: str
    new_mode: str


class Commit(NamedTuple):
    """One commit; times are seconds since the epoch."""

    id: str
    parents: tuple[str, ...]
    author_name: str
    author_email: str
    author_time: int
    committer_name: str
    committer_email: str
    committer_time: int
    message: str

    @property
    def subject(self) -> str:
        """The message's first line."""
        return self.message.partition("\n")[0]


class TreeFile(NamedTuple):
    """A file in a tree. For a symlink (`mode` 120000) the data is the link's target: it is never followed."""

    path: str
    mode: str
    blob: str
    size: int
    data: bytes
    cut: bool


def resolve(control: Path, name: str) -> str | None:
    """The commit at a full ref name or object id, or None when there is none."""
    if not name.startswith("refs/"):
        names.check_commit(name)
    else:
        names.check_ref(name)
    done = git(
        control, "rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}", ok=(0, 1, 128)
    )
    return done.stdout.decode().strip() if done.code == 0 else None


def tree_of(control: Path, commit: str) -> str:
    """The tree's id of a commit. Raises GitError when the commit is absent."""
    name = names.check_commit(commit) + "^{tree}"
    return git(control, "rev-parse", "--verify", "--quiet", "--end-of-options", name).stdout.decode().strip()


def tree_and_committer(control: Path, commit: str) -> tuple[str, str]:
    """The tree's id of a commit and its committer's address. Raises GitError when the commit is absent."""
    form = ("--no-show-signature", "--format=%T %ce")
    said = git(control, "log", "-1", *form, names.check_commit(commit), "--").stdout.decode(errors="replace")
    tree, _, address = said.strip().partition(" ")
    return tree, address


def is_ancestor(control: Path, ancestor: str, commit: str) -> bool:
    """Whether `ancestor` is reachable from `commit` (a commit is its own ancestor)."""
    arguments = ("merge-base", "--is-ancestor", names.check_commit(ancestor), names.check_commit(commit))
    return git(control, *arguments, ok=(0, 1)).code == 0


def merge_base(control: Path, one: str, other: str) -> str | None:
    """A best common ancestor, or None for unrelated histories."""
    done = git(control, "merge-base", names.check_commit(one), names.check_commit(other), ok=(0, 1))
    return done.stdout.decode().split("\n")[0] or None


def count_commits(control: Path, old: str, new: str) -> int:
    """How many commits are reachable from `new` and not from `old`."""
    span = f"{names.check_commit(old)}..{names.check_commit(new)}"
    return int(git(control, "rev-list", "--count", span, "--").stdout)


def log(control: Path, old: str, new: str, *, limit: int = 200) -> list[Commit]:
    """Commits reachable from `new` and not from `old`, newest first, at most `limit`."""
    span = f"{names.check_commit(old)}..{names.check_commit(new)}"
    form = "--format=tformat:%H%x00%P%x00%an%x00%ae%x00%at%x00%cn%x00%ce%x00%ct%x00%B"
    output = git(
        control, "log", "-z", "--no-show-signature", f"--max-count={int(limit)}", form, span, "--"
    ).stdout
    fields = output.decode(errors="replace").split("\0")[:-1]
    return [
        Commit(f[0], tuple(f[1].split()), f[2], f[3], int(f[4]), f[5], f[6], int(f[7]), f[8])
        for f in (fields[start : start + 9] for start in range(0, len(fields), 9))
    ]


def diff(control: Path, old: str, new: str, *, max_bytes: int = 1_000_000) -> Diff:
    """The unified diff from `old` to `new` (commits or trees), at most `max_bytes` of it."""
    pair = (names.check_commit(old), names.check_commit(new))
    done = git(control, *_TREE_DIFF, "-p", "-M", "--full-index", *pair, "--", cap=max_bytes)
    return Diff(done.stdout.decode(errors="replace"), done.cut)


def changed_files(control: Path, old: str, new: str) -> list[ChangedFile]:
    """The files that differ, with their counts of lines, renames found."""
    pair = (names.check_commit(old), names.check_commit(new))
    output = git(control, *_TREE_DIFF, "-z", "-M", "--raw", "--numstat", *pair, "--").stdout
    words = iter(output.decode(errors="replace").split("\0"))
    raw: list[tuple[str, str | None, str, str, str]] = []
    counts: list[tuple[int | None, int | None]] = []
    for word in words:
        if word.startswith(":"):
            old_mode, new_mode, _, _, status = word[1:].split(" ")
            first = next(words)
            second = next(words) if status[0] in "RC" else None
            raw.append((second or first, first if second else None, status[0], old_mode, new_mode))
        elif word:
            added, deleted, path = word.split("\t", 2)
            if not path:  # a rename's two names follow as words of their own
                next(words), next(words)
            counts.append((_count(added), _count(deleted)))
    return [ChangedFile(r[0], r[1], r[2], c[0], c[1], r[3], r[4]) for r, c in zip(raw, counts, strict=True)]


def paths_changed(
    control: Path, old: str, new: str, prefixes: list[str] | None = None, *, limit: int = 0
) -> list[str]:
    """Paths that differ between two commits or trees, only those at or below `prefixes` when given; `limit` 0
    = all."""
    only = [names.check_path(prefix) for prefix in prefixes] if prefixes is not None else []
    if prefixes is not None and not only:
        return []
    pair = (names.check_commit(old), names.check_commit(new))
    output = git(control, "diff-tree", "-r", "-z", "--no-renames", "--name-only", *pair, "--", *only).stdout
    paths = output.decode(errors="replace").split("\0")[:-1]
    return paths[:limit] if limit else paths


def show_file(control: Path, commit: str, path: str, *, max_bytes: int = 1_000_000) -> TreeFile | None:
    """A file of a commit's tree, at most `max_bytes` of it; None when there is no file at that path."""
    entry = git(
        control,
        "ls-tree",
        "-z",
        "-l",
        "--full-tree",
        names.check_commit(commit),
        "--",
        names.check_path(path),
    )
    line = entry.stdout.decode(errors="replace").partition("\0")[0]
    if not line:
        return None
    facts, _, name = line.partition("\t")
    mode, kind, blob, size = facts.split()
    if kind != "blob" or name != path:
        return None
    done = git(control, "cat-file", "blob", blob, cap=max_bytes)
    return TreeFile(path, mode, blob, int(size), done.stdout, done.cut)


def all_paths(control: Path, commit: str, *, most: int = 20_000) -> list[str]:
    """The paths of every file of a commit, at most `most` of them."""
    listed = git(
        control, "ls-tree", "-r", "-z", "--full-tree", "--name-only", names.check_commit(commit), timeout=120
    ).stdout
    return [path.decode("utf-8", "replace") for path in listed.split(b"\0")[:most] if path]


def present_paths(control: Path, commit: str, paths: Iterable[str]) -> set[str]:
    """Those of the paths at which a commit has a file."""
    wanted = [names.check_path(path) for path in paths]
    listed = git(control, "ls-tree", "-z", "--full-tree", names.check_commit(commit), "--", *wanted).stdout
    entries = (line.partition("\t") for line in listed.decode("utf-8", "replace").split("\0"))
    return {path for facts, _, path in entries if facts.startswith("100")}


def blob_at(control: Path, commit: str, path: str) -> str | None:
    """The blob's id at a path, for comparing a gate's script at two commits; None when it is not a file
    there."""
    entry = git(
        control, "ls-tree", "-z", "--full-tree", names.check_commit(commit), "--", names.check_path(path)
    )
    words = entry.stdout.decode(errors="replace").partition("\t")[0].split()
    return words[2] if len(words) == 3 and words[1] == "blob" else None


def special_paths(control: Path, commit: str) -> tuple[list[str], list[str]]:
    """(submodule links, `.gitattributes` files that ask for LFS) in a commit's tree: what huskies cannot
    carry."""
    output = git(
        control, "ls-tree", "-r", "-z", "--full-tree", names.check_commit(commit), timeout=120
    ).stdout
    links: list[str] = []
    attributes: list[tuple[str, str]] = []
    for line in output.split(b"\0"):
        if line.startswith(b"160000"):
            links.append(line.partition(b"\t")[2].decode(errors="replace"))
        elif line.endswith(b".gitattributes") and line.startswith(b"100"):
            facts, _, path = line.partition(b"\t")
            attributes.append((facts.split()[2].decode(), path.decode(errors="replace")))
    lfs = [path for blob, path in attributes[:500] if b"filter=lfs" in _blob(control, blob)]
    return links, lfs


def _blob(control: Path, blob: str) -> bytes:
    return git(control, "cat-file", "blob", blob, cap=1_000_000).stdout


def _count(word: str) -> int | None:
    return None if word == "-" else int(word)
