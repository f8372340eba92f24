"""Fast-forward of a branch that a person has checked out: their files, their index, their rules.

Nothing of theirs is ever overwritten: every differing path must be what the old tip or the candidate says, in
the index and on disk, or the landing waits with the list. Git's own lock (`index.lock`) is held from the
first look to the last step. It is a hard link to an *intent* file of ours, so that a crash leaves a lock
whose owner can be proved, and the next try (`settle`) ends what was begun. Order: files, index, ref, lock;
the ref is the moment of landing.

`git merge --ff-only` is not used: it overwrites ignored files, and dies half-way without saying whose the
lock is."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.git import names
from pipeline.git.command import GitError, project_git
from pipeline.git.refusals import Refused, listed
from pipeline.git.source import Source, local_tip, swap_local
from pipeline.git.worktree import Entry, OnDisk, blocked_reason, disk_entries, index_entries
from pipeline.processes.crashpoint import crashpoint

_BUSY = {
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "BISECT_LOG": "a bisect",
}
_PREFIX = "huskies-land-"
_IN_THE_WAY = re.compile(
    r"'(.+?)' (not uptodate|would be overwritten|would be removed|would lose untracked files)"
)


class _Change(NamedTuple):
    path: bytes
    old: Entry | None
    new: Entry | None


def checked_out_at(source: Source, base: str) -> list[Path]:
    """The work trees of a local repository in which the branch is checked out."""
    output = project_git(source.folder, "worktree", "list", "--porcelain", "-z", timeout=60).stdout
    found: list[Path] = []
    for record in output.split(b"\0\0"):
        fields = dict(field.partition(b" ")[::2] for field in record.split(b"\0"))
        if fields.get(b"branch") == names.branch_ref(base).encode() and b"bare" not in fields:
            found.append(Path(os.fsdecode(fields[b"worktree"])))
    return found


def check_idle(source: Source, base: str) -> None:
    """Refused `busy` while a rebase, merge, cherry-pick, revert or bisect holds the branch, in any linked
    worktree."""
    assert source.git_dir is not None and source.common_dir is not None  # noqa: S101
    for git_dir in (source.common_dir, *sorted((source.common_dir / "worktrees").glob("*"))):
        for name, what in _BUSY.items():
            marker = git_dir / name
            if not marker.exists() or (git_dir != source.git_dir and not _about(marker, base)):
                continue
            message = (
                f"{source.address} is in the middle of {what}: finish or abort it; landing is tried again."
            )
            raise Refused("busy", message, what=what)


def fast_forward(source: Source, base: str, expected: str, candidate: str) -> None:
    """Move a checked-out branch, its index and its files from `expected` to `candidate`, which is its
    descendant.

    Raises Refused `dirty` (with `files`), `locked`, `moved`; GitError for anything else. May be repeated
    after a crash."""
    with _Lock(source, expected, candidate) as lock:
        if local_tip(source, base) != expected or not _on_branch(source, base):
            lock.done = True
            raise Refused(
                "moved", f"{base} in {source.address} moved meanwhile; the work is merged and gated again."
            )
        _switch(source, lock, expected, candidate)
        crashpoint("land-before-swap")
        try:
            swapped = swap_local(source, base, candidate, expected)
        except (Refused, GitError):
            _switch(
                source, lock, candidate, expected
            )  # a held lock of the ref: the person's tree must not wait half-way
            raise
        if not swapped:
            _switch(source, lock, candidate, expected)
            lock.done = True
            raise Refused(
                "moved", f"{base} in {source.address} moved meanwhile; the work is merged and gated again."
            )
        crashpoint("land-after-swap")
        lock.done = True


def settle(source: Source, base: str, *, going_for: str | None = None) -> None:
    """End what a killed landing began: finish the files if its ref had moved, put them back if not, free the
    lock.

    A landing of `going_for` itself is left to the new try. Raises Refused `dirty` when a person's file is in
    the way."""
    assert source.git_dir is not None  # noqa: S101
    for intent in sorted(source.git_dir.glob(_PREFIX + "*.intent")):
        try:
            facts = json.loads(intent.read_text())
            expected, candidate = (
                names.check_commit(facts["expected"]),
                names.check_commit(facts["candidate"]),
            )
        except (ValueError, KeyError, TypeError):
            intent.unlink(missing_ok=True)  # killed before its content was written: nothing else was begun
            continue
        if candidate == going_for:
            continue
        with _Lock(source, expected, candidate) as lock:
            tip = local_tip(source, base)
            if tip == candidate:
                _switch(source, lock, expected, candidate)
            elif tip == expected and lock.resuming:
                _switch(source, lock, candidate, expected)
            lock.done = True


class _Lock:
    """`index.lock` as a hard link to our intent file. `resuming`: an earlier try of the same landing left its
    intent."""

    def __init__(self, source: Source, expected: str, candidate: str) -> None:
        assert source.git_dir is not None  # noqa: S101
        self.git_dir = source.git_dir
        self.address = source.address
        stem = _PREFIX + candidate[:20]
        self.intent = source.git_dir / f"{stem}.intent"
        self.index = source.git_dir / f"{stem}.index"
        self.text = json.dumps({"expected": expected, "candidate": candidate})
        self.resuming = False
        self.done = False

    def __enter__(self) -> "_Lock":
        self.resuming = self.intent.exists()
        if not self.resuming:
            part = self.intent.with_suffix(".part")
            part.write_text(self.text)
            part.rename(self.intent)
        try:
            (self.git_dir / "index.lock").hardlink_to(self.intent)
        except FileExistsError as error:
            if not self._ours():
                if not self.resuming:
                    self.intent.unlink(missing_ok=True)
                raise Refused(
                    "locked",
                    f"{self.address} is in use: {self.git_dir / 'index.lock'} exists. Finish the git command "
                    "that holds it, or remove the file if none runs; landing is tried again.",
                ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # A person's file is in the way: they need their lock back to resolve it. The intent stays only when
        # files of ours are out already, so that the next try knows which half-written ones are its own.
        for scrap in (self.index, self.index.with_name(self.index.name + ".lock")):
            scrap.unlink(missing_ok=True)
        if self._ours():
            (self.git_dir / "index.lock").unlink()
        if self.done or (kind is not None and not self.resuming and issubclass(kind, Refused)):
            self.intent.unlink(missing_ok=True)

    def _ours(self) -> bool:
        try:
            return self.intent.samefile(self.git_dir / "index.lock")
        except FileNotFoundError:
            return False


def _switch(source: Source, lock: _Lock, old: str, new: str) -> None:
    """Bring files and index from one commit to the other. The index is worked on as a copy and replaced at
    the end."""
    lock.index.unlink(missing_ok=True)
    environment = {"GIT_INDEX_FILE": str(lock.index)}
    try:
        lock.index.write_bytes((lock.git_dir / "index").read_bytes())
    except FileNotFoundError:
        pass  # an index nobody has made yet reads as empty
    project_git(source.folder, "update-index", "-q", "--refresh", ok=(0, 1), environment=environment)
    changes = list(_changes(source, old, new))
    in_index, sparse = index_entries(source, [change.path for change in changes], environment)
    on_disk = disk_entries(
        source, {change.path: (change.old, change.new) for change in changes}, resuming=lock.resuming
    )
    blocked: list[tuple[str, str]] = []
    staged = bytearray()
    for change in changes:
        disk, index = on_disk[change.path], in_index.get(change.path)
        if change.path in sparse and disk.entry is None:
            disk = OnDisk(index)  # a sparse checkout: absent on purpose
        reason = blocked_reason(change.path, change.old, change.new, index, disk, resuming=lock.resuming)
        # The copy of the index must say what lies on disk: only then does read-tree write what is missing
        # there.
        held = change.new if disk.entry == change.new else change.old
        if reason:
            blocked.append((os.fsdecode(change.path), reason))
        elif index != held:
            staged += _index_line(change, held)
    if blocked:
        _dirty(source, blocked)
    for change in changes:
        if on_disk[change.path].torn:
            # Half-written by a killed landing of ours; what it holds is the beginning of the candidate's own
            # file.
            (source.folder / os.fsdecode(change.path)).unlink()
    if staged:
        arguments = ("update-index", "-z", "--index-info")
        project_git(source.folder, *arguments, stdin=bytes(staged), environment=environment)
        project_git(source.folder, "update-index", "-q", "--refresh", ok=(0, 1), environment=environment)
    # The last guard, git's own: without --exclude-per-directory it overwrites no untracked file, ignored or
    # not.
    command = ("read-tree", "-m", "-u", names.check_commit(old), names.check_commit(new))
    done = project_git(source.folder, *command, environment=environment, ok=(0, 128))
    if done.code != 0:
        named = [(path, f"{path}: {what}") for path, what in _IN_THE_WAY.findall(done.errors)]
        if not named:
            raise GitError(["git", *command], done.code, done.errors)
        _dirty(source, named)
    crashpoint("land-checkout-halfway")
    lock.index.replace(lock.git_dir / "index")


def _changes(source: Source, old: str, new: str) -> Iterator[_Change]:
    arguments = ("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff")
    output = project_git(source.folder, *arguments, names.check_commit(old), names.check_commit(new)).stdout
    words = iter(output.split(b"\0"))
    for word in words:
        if word.startswith(b":"):
            old_mode, new_mode, old_blob, new_blob, _ = word[1:].decode().split(" ")
            yield _Change(next(words), _entry(old_mode, old_blob), _entry(new_mode, new_blob))


def _entry(mode: str, blob: str) -> Entry | None:
    return None if mode == "000000" else Entry(mode, blob)


def _index_line(change: _Change, held: Entry | None) -> bytes:
    if held is not None:
        return f"{held.mode} {held.blob} 0\t".encode() + change.path + b"\0"
    known = change.old or change.new
    return f"0 {'0' * len(known.blob if known else '')}\t".encode() + change.path + b"\0"


def _dirty(source: Source, blocked: list[tuple[str, str]]) -> None:
    files = list(dict.fromkeys(path for path, _ in blocked))
    message = (
        f"{source.address} has work of its own in the way: {listed(files)}. "
        "Commit it, move it or put it back; landing is tried again."
    )
    raise Refused("dirty", message, files=files[:200], reasons=[reason for _, reason in blocked[:200]])


def _on_branch(source: Source, base: str) -> bool:
    done = project_git(source.folder, "symbolic-ref", "-q", "HEAD", ok=(0, 1))
    return done.stdout.decode().strip() == names.branch_ref(base)


def _about(marker: Path, base: str) -> bool:
    """Whether another worktree's rebase is one of this branch (its HEAD is detached meanwhile)."""
    try:
        return (marker / "head-name").read_text().strip() == names.branch_ref(base)
    except (FileNotFoundError, NotADirectoryError):
        return False
