"""The control repository: the server's own bare repository of a project, and its refs.

Only the server writes here, with its own configuration and no hooks. Refs move by compare-and-swap, so that
two who race cannot both win and nobody's move is lost."""

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.git import names
from pipeline.git.command import GitError, checked, control_environment, git

_ID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?\n?")
_CONFIG = """\
[core]
\trepositoryformatversion = {version}
\tfilemode = true
\tbare = true
\thooksPath = /dev/null
\tfsync = committed,reference
[gc]
\tauto = 0
[maintenance]
\tauto = false
[transfer]
\tfsckObjects = true
\tunpackLimit = 1
"""


class RefMoved(Exception):
    """The ref is no longer where the caller saw it: somebody else moved it first."""

    def __init__(self, ref: str, expected: str | None, found: str | None) -> None:
        self.ref, self.expected, self.found = ref, expected, found
        super().__init__(
            f"{ref} was expected at {expected or 'nothing'} and is at {found or 'nothing'}: "
            "somebody moved it meanwhile."
        )


def create_control(control: Path, *, branch: str, object_format: str = "sha1") -> None:
    """Make the control repository if it is not there: bare, 0700, `branch` as its HEAD. Safe to repeat after
    a crash."""
    names.check_folder(control)
    names.check_branch(branch)
    if object_format not in ("sha1", "sha256"):
        raise names.HostileName(f"The object format {object_format!a} is refused: it must be sha1 or sha256.")
    if control.exists():
        return
    part = control.with_name(control.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, mode=0o700)
    part.chmod(0o700)
    command = ["git", "init", "-q", "--bare", "--template=", f"--object-format={object_format}"]
    command += [f"--initial-branch={branch}", "--", str(part)]
    checked(command, control_environment(), cwd=part.parent, timeout=30)
    text = _CONFIG.format(version=1 if object_format == "sha256" else 0)
    if object_format == "sha256":
        text += "[extensions]\n\tobjectFormat = sha256\n"
    (part / "config").write_text(text)
    _sync(part / "config")
    try:
        part.rename(control)
    except OSError:
        if not control.exists():
            raise
        shutil.rmtree(
            part, ignore_errors=True
        )  # two registrations at once: the first one's folder is as good
    _sync(control.parent)


def object_format(control: Path) -> str:
    """`sha1` or `sha256`."""
    return git(control, "rev-parse", "--show-object-format").stdout.decode().strip()


def shallow_boundary(control: Path) -> str:
    """The text of the `shallow` file: the commits whose parents are absent, one id a line; empty for a whole
    history."""
    try:
        return (control / "shallow").read_text()
    except FileNotFoundError:
        return ""


def read_ref(control: Path, ref: str) -> str | None:
    """The object id at a full ref name, or None. Read as git reads it, the loose one before the packed, but
    without a process (3 ms); what is no plain id is left to git."""
    names.check_ref(ref)
    try:
        text = (control / ref).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        if (control / "HEAD").exists():
            return _packed_ref(control, ref)
        text = b""
    if _ID.fullmatch(text):
        return text.decode().strip()
    done = git(control, "rev-parse", "--verify", "--quiet", "--end-of-options", ref, ok=(0, 1))
    return done.stdout.decode().strip() or None if done.code == 0 else None


def _packed_ref(control: Path, ref: str) -> str | None:
    try:
        text = (control / "packed-refs").read_bytes()
    except FileNotFoundError:
        return None
    found = re.search(rb"^([0-9a-f]{40,64}) " + re.escape(ref.encode()) + rb"$", text, re.MULTILINE)
    return found[1].decode() if found else None


def list_refs(control: Path, prefix: str) -> dict[str, str]:
    """Ref name to object id for every ref under `prefix` (`refs/huskies/sessions/`)."""
    names.check_ref(prefix.rstrip("/") + "/x")
    output = git(control, "for-each-ref", "--format=%(objectname) %(refname)", "--", prefix).stdout.decode()
    pairs = (line.split(" ", 1) for line in output.splitlines())
    return {ref: commit for commit, ref in pairs}


def move_ref(control: Path, ref: str, new: str, old: str | None, *, reason: str = "huskies") -> None:
    """Move a ref to `new` if it is still at `old` (None: if it does not exist). Raises RefMoved when it is
    not."""
    names.check_ref(ref)
    names.check_commit(new)
    expected = names.check_commit(old) if old else "0" * len(new)
    _swap(control, ["-m", names.check_text(reason, "reason"), "--", ref, new, expected], ref, old)


def delete_ref(control: Path, ref: str, old: str | None = None) -> None:
    """Delete a ref (only if it is at `old`, when given); one that is gone already is fine. Raises
    RefMoved."""
    names.check_ref(ref)
    expected = [names.check_commit(old)] if old else []
    if read_ref(control, ref) is not None:
        _swap(control, ["-d", "--", ref, *expected], ref, old)


def delete_refs(control: Path, refs: Iterable[str]) -> int:
    """Delete those of the refs that are there, wherever they stand; returns how many. Safe to repeat after a crash."""
    there = sorted(ref for ref in set(refs) if read_ref(control, ref) is not None)
    if there:
        orders = "".join(f"delete {ref}\0\0" for ref in there).encode()
        git(control, "update-ref", "-z", "--stdin", stdin=orders, timeout=60)
    return len(there)


def advance_base(control: Path, base: str, new: str, old: str | None) -> None:
    """Let the base branch follow the project's own: from `old` to `new`, by compare-and-swap. Raises
    RefMoved."""
    move_ref(control, names.branch_ref(base), new, old, reason="huskies: base follows the project")


def pin_base(control: Path, key: str, commit: str) -> None:
    """Keep a copy's base alive under the copy's key, before the copy exists. Repeating it with the same
    commit is fine."""
    try:
        # A power cut ends the copy's process too, and takes what that wrote in the seconds before.
        make_ref(control, names.base_pin(key), commit, lasting=False)
    except RefMoved as moved:
        if moved.found != commit:
            raise


def make_ref(control: Path, ref: str, commit: str, *, lasting: bool = True) -> None:
    """Make a ref of ours, named by a key that is drawn by lot: as git would write it, but without a process (4 ms). Raises RefMoved when
    it is there. `lasting`: its name survives a power cut from now on."""
    if (found := read_ref(control, ref)) is not None:
        raise RefMoved(ref, None, found)
    place = control / ref
    part = control / f"{os.urandom(8).hex()}.part"  # beside `refs`, where every file is a ref
    part.write_text(names.check_commit(commit) + "\n")
    try:
        _sync(part)  # an empty ref would stand in git's way
        while True:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(part, place)
                break
            except FileNotFoundError:  # git has just removed the folder, which was empty
                continue
            except FileExistsError:
                raise RefMoved(ref, None, read_ref(control, ref)) from None
    finally:
        part.unlink(missing_ok=True)
    if lasting:
        _sync(place.parent)


def unpin_base(control: Path, key: str) -> None:
    """Let go of a base, once the copy of that key is deleted."""
    delete_ref(control, names.base_pin(key))


def set_story_branch(control: Path, branch: str, new: str, old: str | None) -> None:
    """Let the story's branch follow an accepted session, by compare-and-swap. Raises RefMoved."""
    move_ref(
        control, names.HEADS + names.check_story_branch(branch), new, old, reason="huskies: session taken in"
    )


def repack(control: Path) -> None:
    """Join the packs that intakes leave behind into one. Nothing is pruned: copies borrow unreachable objects
    too. Safe beside running copies and intakes; takes minutes on a large repository."""
    git(control, "repack", "-q", "-a", "-d", "-k", timeout=3600)
    git(control, "pack-refs", "--all", timeout=300)


def _swap(control: Path, arguments: list[str], ref: str, old: str | None) -> None:
    done = git(control, "update-ref", *arguments, ok=(0, 1, 128))
    if done.code == 0:
        return
    found = read_ref(control, ref)
    if found != old:
        raise RefMoved(ref, old, found)
    # At the expected place and yet refused: a lock is held, or the disk is full. Not a lost race.
    raise GitError(["git", "update-ref", *arguments], done.code, done.errors)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
