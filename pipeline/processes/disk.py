"""What folders hold on disk, counted a piece at a time."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Held(NamedTuple):
    """`entries`: files, folders and links; `size`: bytes on disk, so that a sparse file counts what it has.

    `unread`: folders that could not be looked into.
    """

    entries: int
    size: int
    unread: int = 0


def held(folders: Iterable[Path], *, piece: int = 20_000) -> Iterator[Held]:
    """Everything below the folders, so far: after each `piece` of entries (some 50 ms), and at the end.

    No link is followed, and a file with several names in them counts once. What goes while it is counted is left out.
    """
    entries = size = unread = 0
    seen: set[tuple[int, int]] = set()
    levels = [str(folder) for folder in folders]
    while levels:
        try:
            with os.scandir(levels.pop()) as found:
                for entry in found:
                    entries += 1
                    try:
                        facts = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    is_folder = entry.is_dir(follow_symlinks=False)
                    if is_folder:
                        levels.append(entry.path)
                    name = (facts.st_dev, facts.st_ino)
                    if is_folder or facts.st_nlink == 1 or name not in seen:
                        size += facts.st_blocks * 512
                    if not is_folder and facts.st_nlink > 1:
                        seen.add(name)
                    if entries % piece == 0:
                        yield Held(entries, size, unread)
        except OSError:
            unread += 1
    yield Held(entries, size, unread)
