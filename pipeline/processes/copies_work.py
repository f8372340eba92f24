"""Git inside a session's copy, after the session: what is uncommitted, what was committed, as one stream of bytes.

Runs under the confinement that the caller gives, on a mended `.git` (`copies_store`). Nothing it says is believed: the
control repository checks every object again. A copy that does not answer in time is a refusal, not an error, since
trying again would hang again.
"""

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from pipeline.git import names
from pipeline.git.command import Completed, GitError, GitTimeout, OutputTooLarge, checked, control_environment
from pipeline.git.merging import check_person
from pipeline.git.refusals import Refused, listed
from pipeline.processes import copies_store

_OPTIONS = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "safe.directory=*",
    "-c",
    "commit.gpgSign=false",
)
_MOST_REFS = 20
_NO_COMMIT = re.compile(r"'(.+?)/?' does not have a commit checked out")


class Head(NamedTuple):
    """Where the session left HEAD. `branch`: short name, None when detached; `commit`: None when it cannot be read."""

    branch: str | None
    commit: str | None


class CopyGit:
    """Git in one copy. `limit`: seconds for each command; `most_bytes`: room for changed files and for the pack."""

    def __init__(self, copy: Path, confinement: Sequence[str], *, limit: float, most_bytes: int) -> None:
        self.copy = copy
        self.prefix = [*confinement, "git", *_OPTIONS, f"--git-dir={copy / '.git'}", f"--work-tree={copy}"]
        self.limit = limit
        self.most_bytes = most_bytes
        self.skipped: list[str] = []
        self.nested: list[str] = []

    def head(self) -> Head:
        """HEAD, as far as it can be read."""
        name = self._run("symbolic-ref", "-q", "HEAD", ok=(0, 1, 128)).stdout.decode(errors="replace").strip()
        return Head(
            name.removeprefix(names.HEADS) if name.startswith(names.HEADS) else None, self.commit_at("HEAD")
        )

    def commit_at(self, ref: str) -> str | None:
        """The commit at a ref of the copy."""
        done = self._run(
            "rev-parse", "--verify", "--quiet", "--end-of-options", ref + "^{commit}", ok=(0, 1, 128)
        )
        text = done.stdout.decode(errors="replace").strip()
        return names.check_commit(text) if done.code == 0 and text else None

    def other_commits(self, excluding: list[str]) -> dict[str, str]:
        """Refs of the copy (branches, stash, tags) with commits that none of `excluding` reaches, at most 20."""
        listing = self._run(
            "for-each-ref", "--count=200", "--format=%(objecttype) %(objectname) %(refname)", ok=(0, 128)
        )
        found: dict[str, str] = {}
        for line in listing.stdout.decode(errors="replace").splitlines():
            kind, commit, ref = line.split(" ", 2)
            if (
                kind != "commit"
                or commit in excluding
                or commit in found.values()
                or len(found) >= _MOST_REFS
            ):
                continue
            arguments = ("rev-list", "--max-count=1", names.check_commit(commit), "--not", *excluding, "--")
            done = self._run(*arguments, ok=(0, 128))
            if done.code == 0 and done.stdout.strip():
                found[ref] = commit
        return found

    def snapshot(self, parent: str, message: str, author: dict[str, str]) -> str | None:
        """A commit on `parent` of everything uncommitted (also untracked, not what is ignored), or None when there is
        nothing. No branch of the copy moves. Refused `too_large` when the changed files are too much."""
        index = {"GIT_INDEX_FILE": str(self.copy / ".git" / copies_store.INDEX)}
        if not copies_store.borrow_index(self.copy):
            self._run("read-tree", parent, environment=index)
        changed = self._changed(index)
        if changed is None:
            # An index that git cannot read: only its memory of unchanged files is lost.
            copies_store.borrow_index(self.copy)
            (self.copy / ".git" / copies_store.INDEX).unlink(missing_ok=True)
            self._run("read-tree", parent, environment=index)
            changed = self._changed(index) or []
        if changed:
            self._check_size(changed)
            self._add(index, parent)
        tree = self._run("write-tree", environment=index).stdout.decode().strip()
        if tree == self._run("rev-parse", parent + "^{tree}").stdout.decode().strip():
            return None
        name, email = check_person(author)
        environment = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email}
        arguments = ("commit-tree", names.check_commit(tree), "-p", parent, "-F", "-")
        done = self._run(*arguments, stdin=message.encode(errors="replace"), environment=environment)
        return names.check_commit(done.stdout.decode().strip())

    def pack(self, tips: list[str], base: str, sink: IO[bytes]) -> None:
        """Write the objects that lead from `base` to `tips` as one pack. Refused `too_large`, `hostile_store`."""
        wanted = "".join(f"{names.check_commit(tip)}\n" for tip in tips) + f"^{names.check_commit(base)}\n"
        arguments = (
            "-c",
            "pack.threads=1",
            "-c",
            "pack.windowMemory=64m",
            "pack-objects",
            "--revs",
            "--stdout",
            "-q",
        )
        try:
            self._run(
                *arguments, "--delta-base-offset", stdin=wanted.encode(), sink=sink, cap=self.most_bytes
            )
        except OutputTooLarge as error:
            raise Refused(
                "too_large", f"The session's commits are larger than {self.most_bytes:,} bytes."
            ) from error

    def _changed(self, index: dict[str, str]) -> list[str] | None:
        """Paths that differ from HEAD or are untracked; None when the index cannot be read."""
        flags = self._run("ls-files", "-v", "-z", environment=index, ok=(0, 128))
        if flags.code != 0:
            return None
        hidden = [line[2:] for line in flags.stdout.split(b"\0") if line[:1] in b"hsS" and line]
        if hidden:
            self._unhide(hidden, index)
        done = self._run(
            "status",
            "--porcelain=v1",
            "-z",
            "--untracked-files=all",
            "--no-renames",
            environment=index,
            ok=(0, 128),
        )
        if done.code != 0:
            return None
        return [os.fsdecode(entry[3:]) for entry in done.stdout.split(b"\0") if entry]

    def _unhide(self, paths: list[bytes], index: dict[str, str]) -> None:
        """Files marked "assume unchanged", or "skip" and yet on disk, would be lost with the copy: look at them again."""
        there = [path for path in paths if os.path.lexists(os.path.join(os.fsencode(self.copy), path))]
        text = b"".join(path + b"\0" for path in there)
        for flag in ("--no-assume-unchanged", "--no-skip-worktree"):
            self._run("update-index", flag, "-z", "--stdin", stdin=text, environment=index, ok=(0, 128))

    def _check_size(self, paths: list[str]) -> None:
        sizes: list[tuple[int, str]] = []
        for path in paths:
            try:
                facts = os.lstat(self.copy / path)
            except OSError:
                continue
            if stat.S_ISREG(facts.st_mode):
                sizes.append((facts.st_size, path))
        total = sum(size for size, _ in sizes)
        if total > self.most_bytes:
            largest = [f"{path} ({size:,} bytes)" for size, path in sorted(sizes, reverse=True)[:5]]
            message = f"The uncommitted files hold {total:,} bytes, more than {self.most_bytes:,}: {listed(largest)}. Delete or ignore them."
            raise Refused("too_large", message, files=largest)

    def _add(self, index: dict[str, str], parent: str) -> None:
        for _ in range(50):
            done = self._run("add", "-A", "--ignore-errors", "--", ".", environment=index, ok=(0, 1, 128))
            empty = _NO_COMMIT.search(done.errors)
            if done.code == 128 and not empty:
                raise GitError([*self.prefix, "add", "-A"], done.code, done.errors)
            self.skipped = [line for line in done.errors.splitlines() if line.startswith("error: ")][:20]
            links = [empty.group(1)] if empty else self._new_links(index, parent)
            if not links:
                return
            for path in links:
                copies_store.set_aside(self.copy, path)
                self.nested.append(path)
                self._run("update-index", "--force-remove", "--", path, environment=index, ok=(0, 128))
        raise Refused("too_large", "The copy holds more than 50 embedded repositories.")

    def _new_links(self, index: dict[str, str], parent: str) -> list[str]:
        done = self._run("diff-index", "--cached", "--raw", "-z", "--no-renames", parent, environment=index)
        words = done.stdout.decode(errors="surrogateescape").split("\0")
        return [
            words[i + 1] for i, word in enumerate(words[:-1]) if re.match(r":(?!160000)\d+ 160000 ", word)
        ]

    def _run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        ok: Sequence[int] = (0,),
        environment: dict[str, str] | None = None,
        sink: IO[bytes] | None = None,
        cap: int | None = None,
    ) -> Completed:
        command = [*self.prefix, *arguments]
        try:
            return checked(
                command,
                control_environment(environment),
                cwd=self.copy,
                stdin=stdin,
                ok=ok,
                timeout=self.limit,
                sink=sink,
                cap=cap,
            )
        except GitTimeout as error:
            raise Refused(
                "hostile_store",
                f"Git did not answer within {self.limit:g} s in the session's copy, and was killed.",
            ) from error
