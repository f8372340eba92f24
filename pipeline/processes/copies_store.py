"""The `.git` of a session's copy, once the session is over: hostile until proved otherwise.

An agent may have turned any part of it into a trap: a link to another project's objects, a FIFO that hangs
whoever reads it, settings and hooks that run programs. `examine` refuses what git must not read; `mend`
replaces everything that git would obey by files of ours. Both go by folder descriptors and follow no link.
"""

import os
import re
import shutil
import stat
from pathlib import Path
from typing import NamedTuple

from pipeline.git.refusals import Refused
from pipeline.processes.copies import PLAN, alternates, skeleton

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_HEAD = re.compile(rb"(ref: refs/[^\n]+|[0-9a-f]{40}|[0-9a-f]{64})\n?")
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MOST_ENTRIES = 1_000_000
INDEX = "huskies-index"

# Files that git obeys. Removed; `config`, `shallow` and the alternates are written anew.
_OBEYED = ("config", "config.worktree", "commondir", "gitdir", "shallow", "info/attributes", "info/grafts")
_LOCKS = (
    "index.lock",
    "HEAD.lock",
    "packed-refs.lock",
    "config.lock",
    "shallow.lock",
    INDEX,
    INDEX + ".lock",
)


class Mended(NamedTuple):
    """What `mend` had to change: names inside `.git`; `rebuilt`: the whole `.git` was missing or no
    folder."""

    changed: list[str]
    rebuilt: bool


def examine(copy: Path, control: Path, *, strict: bool) -> None:
    """Refused `hostile_store` for links or special files where git reads objects, and for FIFOs and devices
    anywhere in `.git`. `strict` (no sandbox): also for alternates that are not byte for byte ours."""
    try:
        top = os.open(copy, _FOLDER)
    except (NotADirectoryError, FileNotFoundError) as error:
        raise Refused(
            "copy_lost", f"The working copy {copy.name} is gone: there is nothing to take in."
        ) from error
    try:
        try:
            git_dir = os.open(".git", _FOLDER, dir_fd=top)
        except OSError:
            return  # missing or no folder: `mend` builds it anew
        try:
            _examine_folder(git_dir)
            if strict and _read(git_dir, "objects/info/alternates") != alternates(control).encode():
                _hostile(
                    "its objects/info/alternates was changed, which would let it read other repositories"
                )
        finally:
            os.close(git_dir)
    finally:
        os.close(top)


def mend(copy: Path, control: Path, *, branch: str, base: str, object_format: str) -> Mended:
    """Replace what git would obey by server-made files, and drop stale locks (no process of the session
    lives)."""
    files = skeleton(control, branch=branch, commit=base, object_format=object_format)
    top = os.open(copy, _FOLDER)
    try:
        try:
            git_dir = os.open(".git", _FOLDER, dir_fd=top)
        except OSError:
            _remove(top, ".git")
            os.mkdir(".git", 0o700, dir_fd=top)
            git_dir = os.open(".git", _FOLDER, dir_fd=top)
            try:
                for name, text in files.items():
                    _write(git_dir, name, text)
                for name in ("objects/pack", "refs/heads"):
                    os.close(_folder(git_dir, name))
            finally:
                os.close(git_dir)
            return Mended([".git"], True)
        try:
            return Mended(_mend_folder(git_dir, files), False)
        finally:
            os.close(git_dir)
    finally:
        os.close(top)


def borrow_index(copy: Path) -> bool:
    """Copy the session's index to one of ours, so that git keeps its knowledge of unchanged files but never
    writes through a link in the index's place. False: there is none to copy."""
    git_dir = os.open(copy / ".git", _FOLDER)
    try:
        _remove(git_dir, INDEX)
        data = _read(git_dir, "index")
        if data is None:
            return False
        _write(git_dir, INDEX, data)
        return True
    finally:
        os.close(git_dir)


def set_head(copy: Path, commit: str) -> None:
    """Point a HEAD that cannot be read at a commit."""
    git_dir = os.open(copy / ".git", _FOLDER)
    try:
        _remove(git_dir, "HEAD")
        _write(git_dir, "HEAD", commit + "\n")
    finally:
        os.close(git_dir)


def read_head(copy: Path) -> str:
    """HEAD's text: `ref: refs/heads/...` or a commit id."""
    return _read_text(copy, "HEAD").strip()


def read_stashes(copy: Path) -> list[str]:
    """The commits of every stash: only the newest one has a ref, the others stand in its log."""
    lines = _read_text(copy, "logs/refs/stash").splitlines()[-20:]
    words = [line.split(" ", 2) for line in lines]
    return [word[1] for word in words if len(word) == 3 and _ID.fullmatch(word[1])]


def set_aside(copy: Path, nested: str) -> bool:
    """Move an embedded repository's `.git` out of the way, so that its files count as plain files of the
    story. False when there is none."""
    parent = os.open(copy, _FOLDER)
    target = os.open(copy / ".git", _FOLDER)
    try:
        for part in nested.split("/"):
            inner = os.open(part, _FOLDER, dir_fd=parent)
            os.close(parent)
            parent = inner
        place = _folder(target, "huskies-nested")
        os.close(target)
        target = place
        os.rename(".git", str(len(os.listdir(place))), src_dir_fd=parent, dst_dir_fd=place)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return False
    finally:
        os.close(parent)
        os.close(target)
    return True


def _read_text(copy: Path, name: str) -> str:
    git_dir = os.open(copy / ".git", _FOLDER)
    try:
        return (_read(git_dir, name) or b"").decode(errors="replace")
    finally:
        os.close(git_dir)


def _examine_folder(git_dir: int) -> None:
    seen = 0
    for place, folders, files, descriptor in os.fwalk(".", dir_fd=git_dir, follow_symlinks=False):
        parts = place.split("/")
        inside_objects = len(parts) > 1 and parts[1] == "objects"
        for name in (*folders, *files):
            seen += 1
            mode = os.lstat(name, dir_fd=descriptor).st_mode
            shown = "/".join((*parts[1:], name))
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
                _hostile(f"{shown!a} is a FIFO, socket or device, which would hang whoever reads it")
            if stat.S_ISLNK(mode) and (inside_objects or shown == "objects"):
                _hostile(f"{shown!a} is a link, which could lead to another repository's objects")
        if seen > _MOST_ENTRIES:
            raise Refused("too_large", f"The copy's .git holds more than {_MOST_ENTRIES} entries.")


def _mend_folder(git_dir: int, files: dict[str, str]) -> list[str]:
    ours: dict[str, bytes | None] = dict.fromkeys(_OBEYED)
    for name in ("config", "shallow", "objects/info/alternates", "info/exclude"):
        ours[name] = files[name].encode() if name in files else None
    changed = []
    for name, wanted in ours.items():
        found = _read(git_dir, name)
        if found == wanted and (wanted is not None or not _exists(git_dir, name)):
            continue
        if not (name == "shallow" and found == b""):
            changed.append(name)
        _remove(git_dir, name)
        if wanted is not None:
            _write(git_dir, name, wanted)
    for name in _LOCKS:
        _remove(git_dir, name)
    for name in ("objects", "refs"):
        os.close(_folder(git_dir, name))
    head = _read(git_dir, "HEAD") or b""
    if not _HEAD.fullmatch(head):
        changed.append("HEAD")
        _remove(git_dir, "HEAD")
        _write(git_dir, "HEAD", files["HEAD"])
    return changed


def _folder(git_dir: int, name: str) -> int:
    """A descriptor of a folder below `.git`, made when absent; a link or file in its place is removed."""
    current = os.dup(git_dir)
    for part in name.split("/"):
        try:
            inner = os.open(part, _FOLDER, dir_fd=current)
        except OSError:
            _remove(current, part)
            os.mkdir(part, 0o700, dir_fd=current)
            inner = os.open(part, _FOLDER, dir_fd=current)
        os.close(current)
        current = inner
    return current


def _parent(git_dir: int, name: str) -> tuple[int, str] | None:
    """An open parent folder and the last part of the name; None when the parent is absent or a link."""
    folder, _, last = name.rpartition("/")
    current = os.dup(git_dir)
    for part in folder.split("/") if folder else []:
        try:
            inner = os.open(part, _FOLDER, dir_fd=current)
        except OSError:
            return None
        finally:
            os.close(current)
        current = inner
    return current, last


def read_plan(copy: Path) -> bytes | None:
    """What the session left at PLAN."""
    top = os.open(copy, _FOLDER)
    try:
        return _read(top, PLAN, most=1 << 16)
    finally:
        os.close(top)


def _read(git_dir: int, name: str, most: int = 1 << 28) -> bytes | None:
    """A small regular file's bytes; None for anything else."""
    found = _parent(git_dir, name)
    if found is None:
        return None
    folder, last = found
    try:
        # O_NONBLOCK: opening a FIFO must not hang us.
        descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(most)


def _exists(git_dir: int, name: str) -> bool:
    found = _parent(git_dir, name)
    if found is None:
        return False
    try:
        os.lstat(found[1], dir_fd=found[0])
    except FileNotFoundError:
        return False
    finally:
        os.close(found[0])
    return True


def _write(git_dir: int, name: str, data: str | bytes) -> None:
    folder, _, last = name.rpartition("/")
    parent = _folder(git_dir, folder) if folder else os.dup(git_dir)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(last, flags, 0o600, dir_fd=parent), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
    finally:
        os.close(parent)


def _remove(git_dir: int, name: str) -> None:
    found = _parent(git_dir, name)
    if found is None:
        return
    folder, last = found
    try:
        os.unlink(last, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError:
        shutil.rmtree(last, dir_fd=folder)
    finally:
        os.close(folder)


def _hostile(reason: str) -> None:
    raise Refused(
        "hostile_store", f"The session's repository is refused: {reason}. Nothing was taken from it."
    )
