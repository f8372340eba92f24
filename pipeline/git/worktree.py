"""What a person's working tree holds at given paths, compared by git's own rules (filters, line ends,
modes)."""

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

from pipeline.git.command import project_git
from pipeline.git.source import Source


class Entry(NamedTuple):
    """A path's mode and blob, as a tree or an index has them."""

    mode: str
    blob: str


class OnDisk(NamedTuple):
    """What lies at a path. `entry`: None when nothing does; `torn`: the beginning of a file, left by a crash;
    `obstacle`: why git could not put a file there."""

    entry: Entry | None
    torn: bool = False
    obstacle: str = ""


def index_entries(
    source: Source, paths: list[bytes], environment: dict[str, str]
) -> tuple[dict[bytes, Entry], set[bytes]]:
    """The index's entries at `paths` (an unmerged one has mode `unmerged`), and which a sparse checkout
    leaves out."""
    wanted = set(paths)
    found: dict[bytes, Entry] = {}
    sparse: set[bytes] = set()
    for line in project_git(
        source.folder, "ls-files", "-s", "-t", "-z", environment=environment
    ).stdout.split(b"\0"):
        facts, _, path = line.partition(b"\t")
        if path in wanted:
            tag, mode, blob, stage = facts.decode().split()
            found[path] = Entry(mode, blob) if stage == "0" else Entry("unmerged", blob)
            if tag == "S":
                sparse.add(path)
    return found, sparse


def disk_entries(
    source: Source, paths: dict[bytes, tuple[Entry | None, Entry | None]], *, resuming: bool
) -> dict[bytes, OnDisk]:
    """What lies on disk at each path, given what the old and the new tree have there. `resuming`: look for
    torn files."""
    root = source.folder
    keep_mode = (
        project_git(source.folder, "config", "--type=bool", "core.fileMode", ok=(0, 1)).stdout.strip()
        != b"false"
    )
    found: dict[bytes, OnDisk] = {}
    regular: list[bytes] = []
    for path, (old, new) in paths.items():
        parent = _parent_in_the_way(root, path)
        if parent is not None:
            # A file or link where a folder is needed: fine when it is one that the old tree has there.
            known = paths.get(parent, (None, None))[0] is not None
            found[path] = OnDisk(None, obstacle="" if known else f"{os.fsdecode(parent)} is not a folder")
            continue
        full = root / os.fsdecode(path)
        try:
            mode = os.lstat(full).st_mode
        except FileNotFoundError:
            found[path] = OnDisk(None)
            continue
        blob_length = len((old or new or Entry("", "0" * 40)).blob)
        if stat.S_ISLNK(mode):
            found[path] = OnDisk(Entry("120000", _blob_id(os.fsencode(full.readlink()), blob_length)))
        elif stat.S_ISDIR(mode):
            # Git itself removes a folder that becomes empty, and refuses one that does not.
            found[path] = OnDisk(None)
        elif not stat.S_ISREG(mode):
            found[path] = OnDisk(None, obstacle="it is neither file, link nor folder")
        else:
            regular.append(path)
    for path, blob in zip(regular, _hash(source, regular), strict=True):
        old, new = paths[path]
        executable = os.lstat(root / os.fsdecode(path)).st_mode & stat.S_IXUSR
        mode_text = "100755" if executable else "100644"
        for tree_entry in (new, old):
            if keep_mode or tree_entry is None or tree_entry.blob != blob:
                continue
            if tree_entry.mode.startswith("100"):
                mode_text = tree_entry.mode
        entry = Entry(mode_text, blob)
        torn = resuming and entry not in (old, new) and _begins(source, root / os.fsdecode(path), (old, new))
        found[path] = OnDisk(entry, torn=torn)
    return found


def blocked_reason(
    path: bytes,
    old: Entry | None,
    new: Entry | None,
    index: Entry | None,
    disk: OnDisk,
    *,
    resuming: bool,
) -> str:
    """Why a path may not be touched, or "" when both index and disk hold what the old or the new tree says.

    After a crash of ours (`resuming`) a missing or half-written file is ours as well: git removes a file
    before it writes the new one."""
    name = os.fsdecode(path)
    if disk.obstacle:
        return f"{name}: {disk.obstacle}"
    if index not in (old, new):
        return f"{name}: it has staged changes" if index else f"{name}: its deletion is staged"
    ours = resuming and (disk.entry is None or disk.torn)
    if ours:
        return ""
    if disk.entry not in (old, new):
        return f"{name}: " + (
            "it was deleted" if disk.entry is None else "it was changed" if old else "a file is there"
        )
    if index == new != old and disk.entry != new and not resuming:
        return f"{name}: index and file disagree"
    return ""


def _parent_in_the_way(root: Path, path: bytes) -> bytes | None:
    """The first parent that is a file or a link: below a link we would look into somebody's other folder."""
    parts = path.split(b"/")[:-1]
    for depth in range(1, len(parts) + 1):
        parent = b"/".join(parts[:depth])
        try:
            mode = os.lstat(root / os.fsdecode(parent)).st_mode
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(mode):
            return parent
    return None


def _hash(source: Source, paths: list[bytes]) -> list[str]:
    """Blob ids as `git add` would make them: clean filters and line ends applied by path."""
    if not paths:
        return []
    quoted = b"".join(b'"' + b"".join(b"\\%03o" % byte for byte in path) + b'"\n' for path in paths)
    output = project_git(source.folder, "hash-object", "--stdin-paths", stdin=quoted, timeout=600).stdout
    return output.decode().split()


def _begins(source: Source, full: Path, wholes: tuple[Entry | None, Entry | None]) -> bool:
    """Whether a file holds no more than the beginning of one that git was writing: then nothing is lost with
    it."""
    held = full.read_bytes()
    for entry in wholes:
        if entry is not None:
            whole = project_git(source.folder, "cat-file", "blob", entry.blob).stdout
            if len(held) < len(whole) and whole.startswith(held):
                return True
    return False


def _blob_id(data: bytes, length: int) -> str:
    content = b"blob %d\0" % len(data) + data
    # Git's own object ids; the algorithm is the repository's, not a choice of ours.
    return (
        hashlib.sha256(content) if length == 64 else hashlib.sha1(content, usedforsecurity=False)
    ).hexdigest()
