"""Private working copies: the steps by which a runner makes one, and how one leaves.

A copy has its own `.git` that borrows the control repository's objects (alternates) and shares nothing else
with it or with a neighbour: no stash, hook, configuration or lock. The skeleton is a few files, then one git
command fills the tree. The copy is made as `<copy>.part` and renamed last: a folder without `.part` is a
whole copy."""

import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.git import names
from pipeline.git.command import control_environment
from pipeline.git.control import shallow_boundary
from pipeline.processes.disk import held

Step = dict[str, Any]
CHECKOUT_TIMEOUT = 900.0
PLAN = ".huskies/plan.md"
"""Where a coder keeps its plan; git leaves it alone."""
SMALL_ENTRIES, SMALL_BYTES = 2_000, 64 << 20

_CONFIG = """\
[core]
\trepositoryformatversion = {version}
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
[gc]
\tauto = 0
[maintenance]
\tauto = false
[advice]
\tdetachedHead = false
"""
_FOLDERS = ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info", "hooks")


def skeleton(
    control: Path, *, branch: str | None, commit: str, object_format: str, base: tuple[str, str] | None = None
) -> dict[str, str]:
    """The text of every file in a fresh `.git`, by path inside it. `branch` None: a detached HEAD at
    `commit`.

    `base` (branch, commit) becomes a branch of the copy too, so that `git diff main` says what the story
    changed."""
    names.check_commit(commit)
    config = _CONFIG.format(version=1 if object_format == "sha256" else 0)
    if object_format == "sha256":
        config += "[extensions]\n\tobjectFormat = sha256\n"
    files = {
        "HEAD": f"ref: {names.branch_ref(branch)}\n" if branch else f"{commit}\n",
        "config": config,
        "objects/info/alternates": alternates(control),
        "info/exclude": f"/{PLAN}\n",
    }
    if branch:
        files[names.branch_ref(branch)] = f"{commit}\n"
    if base and base[0] != branch:
        files[names.branch_ref(base[0])] = f"{names.check_commit(base[1])}\n"
    boundary = shallow_boundary(control)
    if boundary:
        files["shallow"] = boundary
    return files


def alternates(control: Path) -> str:
    """What `objects/info/alternates` of a copy must hold, byte for byte."""
    return f"{names.check_folder(control)}/objects\n"


def copy_steps(
    control: Path,
    copy: Path,
    *,
    branch: str | None,
    commit: str,
    object_format: str,
    resume_from: str | None = None,
    base_branch: str | None = None,
    base_tip: str | None = None,
    plan: str = "",
) -> list[Step]:
    """Runner steps that make a working copy of `commit` on `branch` (None: detached, as gates use it).

    `resume_from`: the commit of an earlier session's ref; the branch starts there instead. `base_branch`:
    also set this branch, at `base_tip` (by default at `commit`): after a conflict the coder needs the base
    branch as it is now. `plan`: what stands at PLAN; it is there before anything of the repository could lead a write elsewhere.
    Pin the base first (`pin_base`). A copy that exists is never touched: the last step fails."""
    part = names.check_folder(copy.with_name(copy.name + ".part"))
    start = resume_from or commit
    base = (base_branch, base_tip or commit) if base_branch else None
    files = skeleton(control, branch=branch, commit=start, object_format=object_format, base=base)
    git_dir = part / ".git"
    folders = dict.fromkeys([*_FOLDERS, *(str(Path(name).parent) for name in files if "/" in name)])
    operations: list[list[Any]] = [["remove", str(part)], ["mkdir", str(part)]]
    operations += [["mkdir", str(git_dir / name)] for name in folders]
    operations += [["write", str(git_dir / name), text, 0o600] for name, text in files.items()]
    if plan:
        place = part / PLAN
        operations += [["mkdir", str(place.parent)], ["write", str(place), plan, 0o600]]
    checkout = {
        "name": "checkout",
        "argv": ["git", "read-tree", "--reset", "-u", "HEAD"],
        "cwd": str(part),
        "env": control_environment(),
        "stdin": None,
        "keep_stdin": False,
        "timeout": CHECKOUT_TIMEOUT,
        "main": False,
        "interrupt": None,
        "optional": False,
    }
    return [
        {"name": "copy", "files": operations},
        checkout,
        {"name": "copy-ready", "files": [["rename", str(part), str(copy)]]},
    ]


def hold_back_steps(copy: Path, paths: Sequence[str]) -> list[Step]:
    """Runner steps that take these files of a fresh copy away, so that no program obeys them. To git they are as they were committed:
    what is committed on top of them keeps them."""
    if not paths:
        return []
    skip = {
        "name": "hold-back",
        "argv": ["git", "update-index", "--skip-worktree", "-z", "--stdin"],
        "cwd": str(copy),
        "env": control_environment(),
        "stdin": "".join(f"{path}\0" for path in paths),
        "optional": True,  # a name that git does not give back as it is must not keep the session from starting
    }
    return [skip, {"name": "held-back", "files": [["remove", str(copy / path)] for path in paths]}]


def move_to_trash(home: Path, folder: Path, key: str) -> Path | None:
    """Take a copy out of use in one rename, to `trash/<key>`; None when it is gone already. Deleting comes
    later (the `discard` chore), however long it takes. Call it only when the session's ref exists."""
    trash = home / "trash"
    trash.mkdir(mode=0o700, exist_ok=True)
    target = trash / names.check_key(key)
    for attempt in range(1000):
        place = target if not attempt else target.with_name(f"{key}-{attempt}")
        if place.exists():
            continue  # a `.part` and a copy of the same key, or an earlier delete that was cut short
        try:
            folder.rename(place)
        except FileNotFoundError:
            return None
        return place
    raise OSError(f"There is no free name for {folder.name} in {trash}: empty that folder.")


def is_small(folder: Path) -> bool:
    """Whether deleting it takes milliseconds; False for what cannot be looked into, which the chore unlocks."""
    found = next(held([folder], piece=SMALL_ENTRIES))
    return found.entries < SMALL_ENTRIES and found.size < SMALL_BYTES and not found.unread


def delete_tree(folder: Path) -> None:
    """Delete a folder and all below it, read-only folders too (module caches are), without following
    links."""

    def unlock(function: Callable[[str], object], path: str, _problem: object) -> None:
        parent = Path(path).parent
        parent.chmod(parent.stat().st_mode | stat.S_IRWXU)
        if Path(path).is_dir() and not Path(path).is_symlink():
            Path(path).chmod(stat.S_IRWXU)
            shutil.rmtree(path, onerror=None)
        else:
            function(path)

    if folder.is_symlink() or not folder.exists():
        folder.unlink(missing_ok=True)
        return
    shutil.rmtree(folder, onerror=unlock)
