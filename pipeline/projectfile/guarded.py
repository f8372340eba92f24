"""Paths whose content is obeyed by programs that people and agents start in the repository, such as an agent program's own settings.

A story's change of one waits for an admin's approval, as a change of what judges it does. Which they are, the floors above know.
"""

from __future__ import annotations

from collections.abc import Iterable

_names: set[str] = set()


def register_guarded(names: Iterable[str]) -> None:
    """Names of files or folders, guarded in whatever folder of the repository they stand."""
    _names.update(names)


def guarded(paths: Iterable[str]) -> list[str]:
    """Those of the `paths` (relative to the top) that are such a file, or lie in such a folder."""
    # In any case of letters: on some people's machines .Claude is .claude.
    names = {name.casefold() for name in _names}
    return [path for path in paths if any(part.casefold() in names for part in path.split("/"))]
