"""Which files of the repository define the gate, so that a story cannot quietly rewrite what judges it.

These are the folder of the project file, what `gate.script` names, the files that the gate's command names,
and, when `gate.script` is left out, the file where the command's tool keeps its targets (`make`: Makefile).
A path with a slash at its end is a folder with all below it; without one it is that file only. Names are read
from the command's words: whether such a file exists is not asked, a path that is not there never changes.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable

from pipeline.projectfile.fields import Command
from pipeline.projectfile.schema import Gate, ProjectFile

CONFIG_FOLDER = ".huskies/"

_MAKE = ("GNUmakefile", "makefile", "Makefile")
_PACKAGE = ("package.json",)
TOOL_FILES = {
    "make": _MAKE,
    "gmake": _MAKE,
    "npm": _PACKAGE,
    "pnpm": _PACKAGE,
    "yarn": _PACKAGE,
    "bun": _PACKAGE,
    "just": ("justfile", "Justfile", ".justfile"),
    "tox": ("tox.ini",),
    "nox": ("noxfile.py",),
    "rake": ("Rakefile",),
    "task": ("Taskfile.yml", "Taskfile.yaml"),
    "invoke": ("tasks.py",),
    "deno": ("deno.json", "deno.jsonc"),
    "composer": ("composer.json",),
}
# The word after these is a file even without a dot or a slash in it.
_READS_A_FILE = {"sh", "bash", "dash", "zsh", "ksh", "source", ".", "node", "ruby", "perl", "php", "-f"}
# The word after these is the folder in which what follows is looked up.
_ENTERS_A_FOLDER = {"cd", "pushd", "-C", "--prefix", "--directory", "--cwd", "--dir"}
_NOT_IN_A_PATH = set("*?[]{}$`<>|;&()\"'\\") | {"://"}


def gate_paths(file: ProjectFile) -> list[str]:
    """The paths, relative to the top, whose change by a story waits for an admin's approval.

    Sorted, no doubles.
    """
    paths = {CONFIG_FOLDER}
    if file.gate is not None:
        paths |= _named(file.gate)
        for path in file.gate.script or ():
            # A path given by a person may be a file or a folder: git alone knows which, so both are meant.
            paths |= {"./"} if path == "." else {path, f"{path.rstrip('/')}/"}
    return sorted(paths)


def touched(file: ProjectFile, changed: Iterable[str]) -> list[str]:
    """Those of the `changed` paths (relative to the top, without `./`) that wait for an approval."""
    paths = gate_paths(file)
    files = set(paths)
    folders = tuple(path for path in paths if path.endswith("/"))
    # The folder itself counts too: it may have become a symbolic link or a file.
    return [
        path
        for path in changed
        if "./" in files or path in files or f"{path}/" in files or path.startswith(folders)
    ]


def _named(gate: Gate) -> set[str]:
    words = _words(gate.command)
    folders, paths = [""], set()
    previous = ""
    for word in words:
        option, equals, rest = word.partition("=")
        if equals and option.startswith("-"):
            previous, word = option, rest
        if previous in _ENTERS_A_FOLDER:
            if folder := _path(word):
                folders += [posixpath.normpath(posixpath.join(folders[-1], folder))]
        elif path := _path(word):
            if "/" in word or "." in path or previous in _READS_A_FILE:
                paths.add(path)
        previous = word
    if gate.script is None:
        paths |= {name for word in words for name in TOOL_FILES.get(posixpath.basename(word), ())}
    return {posixpath.normpath(posixpath.join(folder, path)) for folder in folders for path in paths}


def _words(command: Command, depth: int = 3) -> list[str]:
    """The command's words without operators; a command inside a word (`sh -c "…"`) is taken apart as well."""
    words = list(command) if isinstance(command, tuple) else _split(command)
    inner = [part for word in words if depth and len(word.split()) > 1 for part in _words(word, depth - 1)]
    return words + inner


def _split(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:  # an open quote: the shell will refuse the command, its words still name files
        return line.split()


def _path(word: str) -> str | None:
    """The word as a path inside the repository, None if it cannot be one."""
    word = word.split("::")[0]  # pytest's way to name one test in a file
    if (
        not word
        or word.startswith(("-", "/", "~"))
        or "=" in word
        or any(mark in word for mark in _NOT_IN_A_PATH)
    ):
        return None
    path = posixpath.normpath(word)
    inside = path != "." and ".." not in path.split("/") and path.strip("./")
    return path if inside and path.isprintable() else None
