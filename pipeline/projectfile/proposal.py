"""A first project file for a repository, guessed from its files, with comments for the person who finishes
it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from pipeline.projectfile.ecosystems import RUNNERS, TOOL_CHAINS, Folder, Guess, Guesser
from pipeline.projectfile.sections import SectionParser

CONTENTS_WANTED = (
    "package.json",
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
    "tox.ini",
    "requirements.txt",
    "requirements-dev.txt",
    "dev-requirements.txt",
    "GNUmakefile",
    "makefile",
    "Makefile",
    "justfile",
    ".gitignore",
)
"""The file names whose contents `propose` can use, at the top and in its folders."""

MAX_COMPONENTS = 12
_SAFE_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")


def propose(
    paths: Iterable[str], contents: Mapping[str, str], *, sections: Mapping[str, SectionParser] | None = None
) -> str:
    """The text of a project file for a repository with these paths (relative to its top; two levels do).

    `contents` maps paths to texts, as far as they are known. The result is always readable by `parse` with
    the same `sections`.
    """
    found = _components(frozenset(paths), contents)
    root_runner = _first(RUNNERS, _folder("", frozenset(paths), contents))
    blocks = [_HEAD, _gate_block(root_runner, found), _components_block(found), _SETTINGS]
    blocks += [parser.proposal().rstrip("\n") for parser in (sections or {}).values()]
    return "\n\n".join(block for block in blocks if block) + "\n"


_HEAD = """\
# How huskies works on this repository. A change of a command, a base URL, a credential or the gate becomes
# active when an admin has approved it; everything else at once. A mistake keeps the last good version."""

_SETTINGS = """\
# Who looks at work that passed the gate: server (nobody: it lands), human, agent.
default_qa: server

# How often an agent may try again after a red gate before the story is blocked; 0 = without limit.
max_retries: 2

# How many coders may work at the same time (left out: as many as there are).
# max_coders: 2"""

_NO_GATE = """\
# The gate: the command that must succeed before work is accepted. No test command was found here; until
# there is a gate, people accept the work.
# gate:
#   command: ./script/test"""


def _components(paths: frozenset[str], contents: Mapping[str, str]) -> list[tuple[str, Guess]]:
    """Folder and guess for the top and, if the top has no tool chain, for its folders."""
    top = _first(TOOL_CHAINS, _folder("", paths, contents))
    if top is not None:
        return [("", top)]
    folders = sorted({path.split("/")[0] for path in paths if "/" in path.rstrip("/")})
    guesses = ((name, _first(TOOL_CHAINS, _folder(name, paths, contents))) for name in folders)
    found = [(name, guess) for name, guess in guesses if guess and _SAFE_FOLDER.fullmatch(name)]
    return found[:MAX_COMPONENTS]


def _folder(name: str, paths: frozenset[str], contents: Mapping[str, str]) -> Folder:
    prefix = f"{name}/" if name else ""
    return Folder(
        frozenset(path.removeprefix(prefix) for path in paths if path.startswith(prefix)),
        {path.removeprefix(prefix): text for path, text in contents.items() if path.startswith(prefix)},
    )


def _first(guessers: Iterable[Guesser], folder: Folder) -> Guess | None:
    guesses = (guesser(folder) for guesser in guessers)
    return next((guess for guess in guesses if guess is not None), None)


def _gate_block(runner: Guess | None, found: list[tuple[str, Guess]]) -> str:
    tests = [(folder, guess) for folder, guess in found if guess.test]
    if runner is not None:
        command, why = str(runner.test), runner.why
    elif len(tests) == 1 and not tests[0][0]:
        command, why = str(tests[0][1].test), tests[0][1].why
    elif tests:
        command = " && ".join(f"(cd {folder} && {guess.test})" for folder, guess in tests)
        why = ", ".join(f"{folder}/{guess.why}" for folder, guess in tests)
    else:
        return _NO_GATE
    return f"""\
# The gate: the command that must succeed before work is accepted (guessed from {why}).
# It runs in a clean copy of the committed files, after the set-up of the components, if there are any.
gate:
  command: {_quoted(command)}
  timeout: 20m"""


def _components_block(found: list[tuple[str, Guess]]) -> str:
    with_setup = [(folder, guess) for folder, guess in found if guess.setup]
    if not with_setup:
        return ""
    lines = ["# What prepares a fresh copy of the repository, for agents and for the gate.", "components:"]
    for folder, guess in with_setup:
        lines += [f"  # {guess.remark}"] if guess.remark else []
        name, path = _quoted(folder or "main"), _quoted(folder or ".")
        lines += [f"  - name: {name}", f"    path: {path}", "    setup:"]
        lines += [f"      - {_quoted(step)}" for step in guess.setup]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Plain where YAML reads it back the same, in double quotes otherwise (JSON strings are YAML)."""
    plain = re.fullmatch(r"[A-Za-z./][A-Za-z0-9 ./_=-]*", text) and text not in _WORDS
    return text if plain else json.dumps(text)


_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
