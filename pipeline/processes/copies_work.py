"""Git inside a session's copy, after the session: what is uncommitted, what was committed, as one stream of
bytes.

Runs under the confinement that the caller gives, on a mended `.git` (`copies_store`). Nothing it says is
believed: the control repository checks every object again. A copy that does not answer in time is a refusal,
not an error, since trying again would hang again."""

import os
import re
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from pipeline.git import names
from pipeline.git.command import Completed, GitError, GitTimeout, OutputTooLarge, checked, control_environment
from pipeline.git.merging import check_person
from pipeline.git.refusals import Refused, listed
from pipeline.processes import copies_store

_OPTIONS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "safe.directory=*", "commit.gpgSign=false")
_MOST_REFS = 20
_REFS = ("for-each-ref", "--count=2000", "--format=%(objecttype) %(objectname) %(refname)")
_ENTRIES = ("ls-files", "-v", "-s", "-z")
_STATUS = ("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
_EMPTY_NEST = re.compile(r"'(.+?)/?' does not have a commit checked out")
_NEST = re.compile(r"^warning: adding embedded git repository: (.+)$", re.MULTILINE)


class Head(NamedTuple):
    """Where the session left HEAD. `branch`: short name, None when detached; `commit`: None when
    unreadable."""

    branch: str | None
    commit: str | None


class CopyGit:
    """Git in one copy. `limit`: seconds for each command; `most_bytes`: room for changes and for the pack.

    Each command costs a start of the sandbox, so what the files of `.git` say plainly is read from them.
    """

    def __init__(
        self,
        copy: Path,
        confinement: Sequence[str],
        *,
        limit: float,
        most_bytes: int,
        store: Path | None = None,
    ) -> None:
        """`store`: the folder whose `.git` is used, the copy's own by default."""
        self.copy, self.store = copy, store or copy
        options = [word for option in _OPTIONS for word in ("-c", option)]
        self.confinement = list(confinement)
        self.git = ["git", *options, f"--git-dir={self.store / '.git'}", f"--work-tree={copy}"]
        self.limit = limit
        self.most_bytes = most_bytes
        self.skipped: list[str] = []
        self.nested: list[str] = []
        self._index = {"GIT_INDEX_FILE": str(self.store / ".git" / copies_store.INDEX)}
        self._borrowed = copies_store.borrow_index(self.store)
        self._seen: list[Completed] = []
        self.refs = self._list_refs()

    def head(self) -> Head:
        """HEAD, as far as it can be read."""
        text, ref = copies_store.read_head(self.copy), ""
        if text.startswith("ref: "):
            ref = text.removeprefix("ref: ")
            commit = self.refs.get(ref) or self._commit_at("HEAD")
        else:
            commit = self._commit_at(text) if text else None
        if commit is None:
            self._seen = []  # the files were compared with nothing
        return Head(ref.removeprefix(names.HEADS) if ref.startswith(names.HEADS) else None, commit)

    def other_commits(self, excluding: list[str]) -> list[str]:
        """Commits of other branches, tags and the stash that none of `excluding` reaches, at most 20."""
        candidates = dict.fromkeys([*self.refs.values(), *copies_store.read_stashes(self.copy)])
        found: list[str] = []
        for commit in [commit for commit in candidates if commit not in excluding][: 5 * _MOST_REFS]:
            arguments = ("rev-list", "--max-count=1", names.check_commit(commit), "--not", *excluding, "--")
            done = self._run(*arguments, ok=(0, 128))
            if done.code == 0 and done.stdout.strip():
                found.append(commit)
        return found[:_MOST_REFS]

    def _list_refs(self) -> dict[str, str]:
        """With an index to go by, what `snapshot` asks first is asked in the same sandbox: each start of one takes 9 ms."""
        refs, *self._seen = self._look([_REFS, _ENTRIES, _STATUS] if self._borrowed else [_REFS])
        lines = (line.split(" ", 2) for line in refs.stdout.decode(errors="replace").splitlines())
        return {ref: names.check_commit(commit) for kind, commit, ref in lines if kind == "commit"}

    def _commit_at(self, name: str) -> str | None:
        arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}")
        done = self._run(*arguments, ok=(0, 1, 128))
        text = done.stdout.decode(errors="replace").strip()
        return names.check_commit(text) if done.code == 0 and text else None

    def snapshot(self, parent: str, message: str, author: dict[str, str]) -> str | None:
        """A commit on `parent` of everything uncommitted (also untracked, not what is ignored), or None when
        there is nothing. No branch of the copy moves. Refused `too_large` when the changed files are too
        much."""
        index = self._index
        changed = self._changed() if self._borrowed else None
        if changed is None:
            # No index, or one that git cannot read: only its memory of unchanged files is lost.
            (self.store / ".git" / copies_store.INDEX).unlink(missing_ok=True)
            self._run("read-tree", parent, environment=index)
            changed = self._changed() or []
        if not changed:
            return None
        self._check_size(changed)
        self._add(index)
        tree = self._run("write-tree", environment=index).stdout.decode().strip()
        if tree == self._run("rev-parse", parent + "^{tree}").stdout.decode().strip():
            return None
        name, email = check_person(author)
        environment = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email}
        arguments = ("commit-tree", names.check_commit(tree), "-p", parent, "-F", "-")
        done = self._run(*arguments, stdin=message.encode(errors="replace"), environment=environment)
        return names.check_commit(done.stdout.decode().strip())

    def pack(self, tips: list[str], base: str, sink: IO[bytes]) -> None:
        """Write the objects that lead from `base` to `tips` as one pack. Refused `too_large`,
        `hostile_store`."""
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

    def _changed(self) -> list[str] | None:
        """Paths that differ from HEAD or are untracked; None when the index cannot be read."""
        seen, self._seen = self._seen, []
        entries, status = seen or self._look([_ENTRIES, _STATUS])
        if entries.code != 0:
            return None
        rows = [row.partition(b"\t") for row in entries.stdout.split(b"\0") if row]
        hidden = [path for facts, _, path in rows if facts[:1] in b"hsS"]
        if hidden:
            self._unhide(hidden, self._index)
        if hidden or status.code != 0:  # HEAD may be set right meanwhile
            [status] = self._look([_STATUS])
        if status.code != 0:
            return None
        changed = [os.fsdecode(entry[3:]) for entry in status.stdout.split(b"\0") if entry]
        links = {os.fsdecode(path) for facts, _, path in rows if b" 160000 " in facts}
        self._flatten(sorted(links.intersection(changed)), self._index)
        return changed

    def _unhide(self, paths: list[bytes], index: dict[str, str]) -> None:
        """Files marked "assume unchanged", or "skip" and yet on disk, would be lost with the copy: look at
        them again."""
        there = [path for path in paths if os.path.lexists(self.copy / os.fsdecode(path))]
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
            message = (
                f"The uncommitted files hold more than {self.most_bytes:,} bytes: {listed(largest)}. "
                "Delete or ignore them."
            )
            raise Refused("too_large", message, files=largest)

    def _add(self, index: dict[str, str]) -> None:
        for _ in range(50):
            done = self._run("add", "-A", "--ignore-errors", "--", ".", environment=index, ok=(0, 1, 128))
            nested = [*_EMPTY_NEST.findall(done.errors), *_NEST.findall(done.errors)]
            if done.code == 128 and not nested:
                raise GitError([*self.confinement, *self.git, "add", "-A"], done.code, done.errors)
            self.skipped = [line for line in done.errors.splitlines() if line.startswith("error: ")][:20]
            if not nested:
                return
            self._flatten(nested, index)
        raise Refused("too_large", "The copy holds more than 50 embedded repositories.")

    def _flatten(self, nested: list[str], index: dict[str, str]) -> None:
        """Embedded repositories would come in as links to commits that nobody has: take their files
        instead."""
        for path in (path.rstrip("/") for path in nested):
            if not copies_store.set_aside(self.copy, path):
                continue
            self.nested.append(path)
            arguments = ("update-index", "--force-remove", "-z", "--stdin")
            self._run(*arguments, stdin=os.fsencode(path) + b"\0", environment=index, ok=(0, 128))

    def _look(self, questions: Sequence[Sequence[str]]) -> list[Completed]:
        """What git says to each of our own questions, asked one after the other in one sandbox. Raises GitError for an end that none
        should have."""
        mark = os.urandom(16).hex()  # nobody who wrote in the copy knows it
        ask = "; ".join(f'"$@" {shlex.join(words)}; printf \'\\n%s %d\\n\' "$0" $?' for words in questions)
        # With optional locks, status notes in our index what it found unchanged: in a sandbox with another
        # user id every file looks touched once, and `add` would read them all again.
        noted = {**self._index, "GIT_OPTIONAL_LOCKS": "1"}
        done = self._checked([*self.confinement, "/bin/sh", "-c", ask, mark, *self.git], environment=noted)
        said = re.split(rb"\n" + mark.encode() + rb" (\d+)\n", done.stdout)
        found = [
            Completed(int(code), out, done.errors) for out, code in zip(said[::2], said[1::2], strict=False)
        ]
        if len(found) != len(questions) or any(each.code not in (0, 128) for each in found):
            raise GitError(
                [*self.git, *questions[0]], max((each.code for each in found), default=None), done.errors
            )
        return found

    def _run(self, *arguments: str, **how: Any) -> Completed:
        """One git command; `how` as of `_checked`."""
        return self._checked([*self.confinement, *self.git, *arguments], **how)

    def _checked(
        self,
        command: Sequence[str],
        *,
        stdin: bytes | None = None,
        ok: Sequence[int] = (0,),
        environment: dict[str, str] | None = None,
        sink: IO[bytes] | None = None,
        cap: int | None = None,
    ) -> Completed:
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


class RunningCopyGit(CopyGit):
    """The same over the files of a copy that is being worked in: nothing there is changed, and its embedded repositories are left out."""

    def _flatten(self, nested: list[str], index: dict[str, str]) -> None:
        info = self.store / ".git/info"
        info.mkdir(exist_ok=True)
        for path in (path.rstrip("/") for path in nested):
            self.nested.append(path)
            pattern = re.sub(r"([\\*?\[ ])", r"\\\1", path)
            with (info / "exclude").open("a") as exclude:
                exclude.write(f"/{pattern}\n")
            arguments = ("update-index", "--force-remove", "-z", "--stdin")
            self._run(*arguments, stdin=os.fsencode(path) + b"\0", environment=index, ok=(0, 128))
