"""The house keeps itself: rules of the tree that no linter knows."""

import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST_FILE = 400
LOCKS = [
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-agents.lock",
    "requirements-node.lock",
    "requirements-api.lock",
]
# Made by programs, or other people's: counted and read by nobody here.
GENERATED = re.compile(r"\.lock$|(^|/)vendor/|(^|/)migrations/")
# Where this tree and its owner live; a folder right under the root is too common a word (/src, /app).
HERE = [re.escape(str(folder)) for folder in (ROOT, *ROOT.parents, Path.home()) if len(folder.parts) > 2]
MACHINE_PATH = re.compile(rf"(?<![\w./~-])(?:{'|'.join(HERE) or '(?!)'})(?![\w-])")
# `.stage = ...` and `stage=` inside update(...) or bulk_update(...).
STAGE_ASSIGNED = re.compile(
    r"\.stage\s*=(?!=)|update(?:_or_create)?\([^()]*\bstage\s*=(?!=)|setattr\([^()]*['\"]stage['\"]"
)


@cache
def our_files() -> tuple[Path, ...]:
    """Every file that is, or would be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("the tree is no git repository, so what belongs to it is not known")
    names = listed.stdout.decode().split("\0")
    return tuple(ROOT / name for name in sorted(set(names)) if name and (ROOT / name).is_file())


def ours(*suffixes: str) -> Iterable[tuple[str, str]]:
    """Name and text of our own text files, those with one of the suffixes if any is given."""
    for path in our_files():
        name = path.relative_to(ROOT).as_posix()
        if GENERATED.search(name) or (suffixes and path.suffix not in suffixes):
            continue
        try:
            yield name, path.read_text()
        except UnicodeDecodeError:
            continue  # a picture


def test_no_file_is_longer_than_two_nouns() -> None:
    lengths = {name: text.count("\n") for name, text in ours(".py", ".js", ".css", ".html", ".sh", "")}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_architecture_fits_in_a_hundred_lines() -> None:
    lengths = {name: text.count("\n") for name, text in ours(".md") if name == "ARCHITECTURE.md"}
    assert all(length < 100 for length in lengths.values()), lengths


def test_only_moves_assigns_a_stage() -> None:
    rooms = [
        name
        for name, text in ours(".py")
        if STAGE_ASSIGNED.search(text) and not name.startswith("tests/") and name != "pipeline/moves.py"
    ]
    assert rooms == []


@pytest.mark.parametrize(
    "line", ["story.stage = 1", "q.update(fence=2, stage='qa')", "setattr(s, 'stage', x)"]
)
def test_the_search_for_assigned_stages_finds_them(line: str) -> None:
    assert STAGE_ASSIGNED.search(line)


@pytest.mark.parametrize(
    "line", ["story.stage == 1", "q.filter(stage='qa').update(fence=2)", "q.filter(stage=x)"]
)
def test_the_search_for_assigned_stages_leaves_questions_alone(line: str) -> None:
    assert not STAGE_ASSIGNED.search(line)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_url_and_no_path(lock: str) -> None:
    package = r"[\w.-]+(?:\[[\w,-]+\])?==[\w.!+]+(?: ; [\w .'=!<>()-]+)?"
    shape = re.compile(rf"(?:{package}|    --hash=sha256:[0-9a-f]{{64}})(?: \\)?")
    strange = [line for line in (ROOT / lock).read_text().splitlines() if not shape.fullmatch(line)]
    assert strange == []


def test_the_dev_lock_holds_the_run_packages_at_the_same_versions() -> None:
    run, dev = (set(re.findall(r"^([\w.-]+==\S+)", (ROOT / name).read_text(), re.M)) for name in LOCKS[:2])
    assert run - dev == set()


def test_nothing_of_ours_names_a_folder_of_somebodys_machine() -> None:
    found = [f"{name}: {match.group()}" for name, text in ours() for match in MACHINE_PATH.finditer(text)]
    assert found == []


def test_every_command_stands_in_the_readme() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text() if readme.exists() else None
    commands = [
        path.stem
        for path in our_files()
        if path.parent.name == "commands"
        and path.parent.parent.name == "management"
        and path.suffix == ".py"
        and not path.stem.startswith("_")
    ]
    assert "test" in commands
    assert text is None or [name for name in commands if not re.search(rf"\b{name}\b", text)] == []
