"""The project's own repository: a folder of this machine or an address elsewhere. It belongs to people.

huskies reads it, and moves exactly one branch of it by compare-and-swap. What it is not able to carry it
refuses by name. Git runs here with the person's own configuration (their repository, their trust) but without
hooks."""

import os
import re
from pathlib import Path
from typing import NamedTuple, NoReturn

from pipeline.git import names
from pipeline.git.command import GitError, project_git
from pipeline.git.refusals import Refused, listed

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)
_SCP = re.compile(
    r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?!/?/)\S.*|(?:[A-Za-z0-9._-]+@)[A-Za-z0-9][A-Za-z0-9.-]*:\S+"
)
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?(/|$)")
_TAKES_LONG = 3600.0


class Source(NamedTuple):
    """Where the project's own repository is. `address`: what git is given. For a folder of this machine the
    rest is set: its git folder, the one it shares with linked worktrees, its work tree (None when bare)."""

    address: str
    git_dir: Path | None = None
    common_dir: Path | None = None
    work_tree: Path | None = None

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return self.git_dir is not None

    @property
    def folder(self) -> Path:
        """Where to run git for a local repository."""
        return Path(self.address)

    @property
    def layout(self) -> str:
        """`remote`, `bare` or `checked_out`."""
        return "remote" if not self.local else "checked_out" if self.work_tree else "bare"


class Heads(NamedTuple):
    """What the repository shows: `branches` by name, `head` the branch that HEAD names (None: detached or
    unborn)."""

    branches: dict[str, str]
    head: str | None
    head_commit: str | None


def kind_of(text: str) -> str:
    """`url` or `path`: what a person meant by the text they typed. An existing folder is always a path."""
    if Path(text).expanduser().exists():
        return "path"
    return "url" if _SCHEME.match(text) or "::" in text or _SCP.fullmatch(text) else "path"


def open_source(address: str, kind: str) -> Source:
    """Look at the repository without changing it. Raises Refused: see `_open_folder` and `check_url`."""
    return _open_folder(address) if kind == "path" else Source(check_url(address))


def check_url(text: str) -> str:
    """The URL, or Refused: only https, ssh, git and file (http on this machine), and no password inside
    it."""
    names.check_text(text, "address")
    scheme = _SCHEME.match(text)
    if "::" in text.partition("/")[0] or (not scheme and not _SCP.fullmatch(text)):
        _no(
            text,
            "bad_address",
            "it is not an address that huskies fetches from: use https://, ssh://, git:// or file://",
        )
    if scheme is None:
        return text
    name, rest = scheme.group(1).lower(), scheme.group(2)
    if name not in ("https", "ssh", "git", "file") and not (name == "http" and _LOOPBACK.match(rest)):
        _no(text, "bad_address", f"{name}:// is not allowed: use https://, ssh://, git:// or file://")
    userinfo, at, host = rest.partition("/")[0].rpartition("@")
    if (host or userinfo).startswith("-") or userinfo.startswith("-"):
        _no(text, "bad_address", "its host begins with a dash")
    if at and (":" in userinfo or name in ("http", "https")):
        shown = f"{name}://…@{host}"
        _no(
            shown,
            "secret_in_address",
            "it carries a password or token: give it to git's credential helper instead",
        )
    return text


def read_heads(source: Source) -> Heads:
    """Its branches and HEAD. Raises Refused `not_a_repository`, `no_access`, `unreachable`,
    `foreign_owner`."""
    try:
        done = project_git(
            None, "ls-remote", "--symref", "--", source.address, "HEAD", "refs/heads/*", timeout=120
        )
    except GitError as error:
        _unreadable(source, error)
    branches: dict[str, str] = {}
    head = commit = None
    for line in done.stdout.decode(errors="replace").splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: ") and name == "HEAD":
            head = value.removeprefix("ref: ").removeprefix(names.HEADS)
        elif name == "HEAD":
            commit = value
        elif name.startswith(names.HEADS):
            branches[name.removeprefix(names.HEADS)] = value
    return Heads(branches, head, commit)


def choose_base(source: Source, heads: Heads, wanted: str | None) -> str:
    """The base branch: the wanted one, else HEAD's. Raises Refused `empty`, `no_commit`, `missing_base`,
    `detached`."""
    if not heads.branches:
        if source.layout == "checked_out":
            _no(source.address, "no_commit", "it has no commit yet: make a first one, then add it again")
        _no(source.address, "empty", "it is empty: push a first commit to it, then add it again")
    shown = sorted(heads.branches)
    if wanted is None and heads.head is None:
        # git says nothing of a HEAD whose branch is not there.
        what = "its HEAD is detached" if heads.head_commit else "its HEAD names a branch that does not exist"
        reason = f"{what}: name the base branch, one of {listed(shown)}"
        _no(source.address, "detached" if heads.head_commit else "missing_base", reason, branches=shown)
    base = wanted or heads.head or ""
    if base not in heads.branches:
        reason = f"it has no branch {base}: name one of {listed(shown)} as the base branch, or create it"
        _no(source.address, "missing_base", reason, branches=shown)
    return names.check_branch(base)


def fetch_base(control: Path, source: Source, base: str) -> str:
    """Bring the base branch into the control repository at `refs/huskies/upstream/<base>`; returns the tip's
    id.

    The base branch of the control repository itself is not touched.
    """
    ref = names.upstream_ref(base)
    flags = (
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--no-auto-maintenance",
        "--no-prune",
        "--update-shallow",
    )
    spec = f"+{names.branch_ref(base)}:{ref}"
    try:
        project_git(
            None,
            "fetch",
            *flags,
            "--no-recurse-submodules",
            "--",
            source.address,
            spec,
            control=control,
            timeout=_TAKES_LONG,
        )
    except GitError as error:
        if "couldn't find remote ref" in error.output:
            _no(
                source.address,
                "missing_base",
                f"its base branch {base} is gone: create it again or name another one",
            )
        _unreadable(source, error)
    done = project_git(
        None, "rev-parse", "--verify", "--quiet", "--end-of-options", ref + "^{commit}", control=control
    )
    return names.check_commit(done.stdout.decode().strip())


def bring_candidate(control: Path, source: Source, ref: str, candidate: str) -> None:
    """Copy a candidate's objects into a local repository, without moving any ref there. Raises GitError."""
    flags = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-prune")
    spec = names.check_ref(ref)
    project_git(
        source.folder,
        "fetch",
        *flags,
        "--no-recurse-submodules",
        "--",
        str(control),
        spec,
        timeout=_TAKES_LONG,
    )
    project_git(source.folder, "cat-file", "-e", names.check_commit(candidate) + "^{commit}")


def local_tip(source: Source, base: str) -> str | None:
    """Where the base branch of a local repository is now."""
    name = names.branch_ref(base)
    done = project_git(source.folder, "rev-parse", "--verify", "--quiet", "--end-of-options", name, ok=(0, 1))
    return done.stdout.decode().strip() or None


def swap_local(source: Source, base: str, candidate: str, expected: str) -> bool:
    """Move a local repository's branch by compare-and-swap; False when it was elsewhere. Raises Refused
    `locked`."""
    name = names.branch_ref(base)
    arguments = ("update-ref", "-m", "huskies: landed", "--", name)
    pair = (names.check_commit(candidate), names.check_commit(expected))
    done = project_git(source.folder, *arguments, *pair, ok=(0, 1, 128))
    if done.code == 0:
        return True
    if local_tip(source, base) != expected:
        return False
    if "File exists" in done.errors:
        reason = "a lock of git is held there: finish what holds it, or remove it if nothing runs"
        _no(source.address, "locked", reason, output=done.errors.strip()[-2000:])
    raise GitError(["git", *arguments, *pair], done.code, done.errors)


def push_candidate(control: Path, source: Source, base: str, candidate: str, expected: str) -> None:
    """Push by compare-and-swap. Raises Refused `moved` or `rejected` when the other side said so, GitError
    when nobody knows what it did."""
    name = names.branch_ref(base)
    lease = f"--force-with-lease={name}:{names.check_commit(expected)}"
    spec = f"{names.check_commit(candidate)}:{name}"
    arguments = ("push", "--porcelain", "--no-verify", "--no-follow-tags", lease, "--", source.address, spec)
    done = project_git(None, *arguments, control=control, ok=(0, 1, 128), timeout=_TAKES_LONG)
    if done.code == 0:
        return
    answer = next(
        (line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith("!")), ""
    )
    if "stale info" in answer or "fetch first" in answer or "incorrect old value" in answer:
        raise Refused(
            "moved",
            f"The branch {base} of {source.address} moved meanwhile; the work is merged and gated again.",
        )
    if "[remote rejected]" in answer or "[rejected]" in answer:
        output = (answer + "\n" + done.errors).strip()[-4000:]
        reason = f"it refused the push to {base}: {answer.split(chr(9))[-1]}. See the output, then try again"
        _no(source.address, "rejected", reason, output=output)
    if re.search(r"Authentication failed|Permission denied|could not read Username|HTTP 403", done.errors):
        _no(
            source.address,
            "no_access",
            "the push was not allowed: check the credentials",
            output=done.errors[-2000:],
        )
    raise GitError(["git", *arguments], done.code, done.errors)


def check_owner(source: Source) -> None:
    """Refused `foreign_owner` when a local repository belongs to another user: writing there would leave our
    files."""
    if source.git_dir is not None and source.git_dir.stat().st_uid != os.geteuid():
        _no(
            source.address,
            "foreign_owner",
            "it belongs to another user: run huskies as its owner, or add it by URL",
        )


def _open_folder(text: str) -> Source:
    """A local repository. Raises Refused `not_found`, `not_a_repository`, `subfolder`, `partial_clone`,
    `foreign_owner`."""
    folder = names.check_folder(Path(text).expanduser())
    if not folder.is_dir():
        _no(text, "not_found", "there is no such folder: check the path")
    folder = folder.resolve()
    questions = ("--is-bare-repository", "--is-inside-work-tree", "--is-inside-git-dir", "--absolute-git-dir")
    try:
        done = project_git(
            folder, "rev-parse", *questions, "--path-format=absolute", "--git-common-dir", timeout=30
        )
    except GitError as error:
        _unreadable(Source(str(folder), git_dir=folder), error)
    bare, in_tree, in_git, git_dir, common = done.stdout.decode(errors="surrogateescape").splitlines()
    top: Path | None = None
    if in_tree == "true":
        shown = project_git(folder, "rev-parse", "--show-toplevel", timeout=30).stdout.decode(
            errors="surrogateescape"
        )
        top = Path(shown.removesuffix("\n")).resolve()
    elif bare != "true":
        top = Path(git_dir).parent
    root = top or Path(git_dir)
    if root.resolve() != folder or (in_git == "true" and bare != "true"):
        _no(
            str(folder),
            "subfolder",
            f"it lies inside the repository {root}: add that one instead",
            top=str(root),
        )
    partial = r"^(remote\..*\.(promisor|partialclonefilter)|extensions\.partialclone)$"
    if project_git(folder, "config", "--get-regexp", partial, ok=(0, 1), timeout=30).code == 0:
        _no(
            str(folder),
            "partial_clone",
            "it is a partial clone: objects are missing. Make a full clone and add that",
        )
    return Source(str(folder), Path(git_dir), Path(common), top)


def _unreadable(source: Source, error: GitError) -> NoReturn:
    output = error.output
    if "dubious ownership" in output:
        _no(
            source.address,
            "foreign_owner",
            "it belongs to another user: run huskies as its owner, or add it by URL",
        )
    if re.search(
        r"Authentication failed|Permission denied|could not read Username|HTTP 40[13]|returned error: 40[13]",
        output,
    ):
        _no(
            source.address,
            "no_access",
            "it does not let us in: check the credentials or the ssh agent",
            output=output,
        )
    if re.search(
        r"not a git repository|does not appear to be a git repository|[Rr]epository .*not found", output
    ):
        _no(source.address, "not_a_repository", "it is not a git repository", output=output)
    if source.local:
        raise error
    _no(source.address, "unreachable", "it could not be reached: check address and network", output=output)


def _no(subject: str, kind: str, reason: str, **data: object) -> NoReturn:
    raise Refused(kind, f"The repository {subject} cannot be used: {reason}.", **data)
