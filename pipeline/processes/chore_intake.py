"""The chore `intake`: take a session's work from its copy into the control repository, without trusting the
copy.

1. `copies_store` looks at the copy's `.git` and replaces what git would obey.
2. Git runs in the copy, confined: what is uncommitted becomes a commit, and all of it one pack.
3. Only the pack's bytes reach git outside: `index-pack --strict` in the control repository checks every
   object.
4. `refs/huskies/sessions/<key>` is made once, from nothing. If it is there, it is the answer.

Only what HEAD reaches and what descends from the base counts. Commits of other refs are kept at
`refs/huskies/recovered/<key>/`, so that nothing an agent committed is lost. Request: `control`, `copy`,
`branch`, `base`, `key`, `message`, `author` {name, email}, `confinement` (a command
prefix or []), `strict_objects`, and optionally `limit` (seconds for each command), `most_bytes`, `plan` (a file of ours that gets what the
session left as its plan)."""

import re
import tempfile
from pathlib import Path
from typing import IO, Any

from pipeline.git import names
from pipeline.git.command import SERVER_EMAIL, GitError, git
from pipeline.git.control import RefMoved, list_refs, make_ref, read_ref
from pipeline.git.reading import count_commits, is_ancestor, paths_changed, resolve, tree_and_committer
from pipeline.git.refusals import Refused
from pipeline.processes import copies_store
from pipeline.processes.copies_work import CopyGit
from pipeline.processes.crashpoint import crashpoint
from pipeline.processes.runfolder import write_durably

LIMIT = 300.0
MOST_BYTES = 1 << 30
_MOST_FILES = 1000
_MACHINE_TROUBLE = re.compile(
    r"No space left|Disk quota|[Oo]ut of memory|Input/output error|Too many open files|File too large"
    r"|write error|unable to (create|write|fork)|cannot fork|Resource temporarily unavailable"
)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Result: `tip`, `tree`, `changed` (the tip's tree is not the base's), `committed_by_server`, `commits`,
    `files` (at most 1,000), `ref`, `head`, `recovered` {ref: commit}, `notes` (sentences). Refused:
    `hostile_store`, `copy_lost`, `not_descendant`, `too_large`."""
    control = names.check_folder(request["control"])
    copy = names.check_folder(request["copy"])
    key, base = names.check_key(request["key"]), names.check_commit(request["base"])
    branch = names.check_branch(request["branch"])
    ref = names.session_ref(key)
    made = read_ref(control, ref)
    if made is not None:
        kept = list_refs(control, f"{names.RECOVERED}{key}/")
        return _answer(control, key, base, made, notes=[], recovered=kept)
    strict = bool(request.get("strict_objects")) or not request["confinement"]
    copies_store.examine(copy, control, strict=strict)
    mended = copies_store.mend(copy, control, branch=branch, base=base, object_format=_format(base))
    work = CopyGit(
        copy,
        request["confinement"],
        limit=float(request.get("limit") or LIMIT),
        most_bytes=int(request.get("most_bytes") or MOST_BYTES),
    )
    if request.get("plan") and (plan := copies_store.read_plan(copy)):
        write_durably(str(Path(request["plan"]).parent), Path(request["plan"]).name, plan)
    notes = [
        f"The session had changed .git/{name}; it was put back."
        for name in mended.changed
        if not mended.rebuilt
    ]
    if mended.rebuilt:
        notes.append("The session had removed .git; what it had committed there is lost, its files are kept.")
    head = work.head()
    story = work.refs.get(names.branch_ref(branch))
    parent = head.commit or story or base
    if head.commit is None:
        notes.append("HEAD could not be read; the story's branch was taken instead.")
        copies_store.set_head(copy, parent)
    snapshot = work.snapshot(parent, request["message"], request["author"])
    crashpoint("intake-snapshot-done")
    tip = snapshot or parent
    if head.commit is not None and head.branch != branch:
        where = f"on {head.branch}" if head.branch else "detached"
        if tip == base and story not in (None, base):
            # Only a look at the base: it left nothing of its own, and the story's branch did.
            tip = story or tip
            notes.append(f"HEAD was {where} at the base; the commits of {branch} were taken.")
        else:
            notes.append(f"HEAD was {where} instead of on {branch}; its commits were taken.")
    notes += [f"An embedded repository at {path} was taken in as plain files." for path in work.nested]
    notes += [f"Not taken in: {line.removeprefix('error: ')}." for line in work.skipped]
    others = work.other_commits([tip, base])
    whole = take_in(control, work, [tip], others, base)
    recovered = _keep(control, key, others) if whole else {}
    if not whole:
        notes.append("Commits of other branches could not be read and were left behind.")
    if tip != base and not is_ancestor(control, base, tip):
        recovered |= _keep(control, key, [tip])
        raise Refused(
            "not_descendant",
            "The session's HEAD does not descend from the commit it began with: its history was rewritten. "
            "The commits are kept; put them on top of the base again.",
            recovered=recovered,
            head=tip,
        )
    try:
        make_ref(control, ref, tip)
    except RefMoved as moved:
        if moved.found is None:
            raise
        tip = moved.found  # another intake of the same session was first
    crashpoint("intake-ref-made")
    return _answer(control, key, base, tip, notes=notes, recovered=recovered, head=head.branch or "detached")


def take_in(control: Path, work: CopyGit, tips: list[str], others: list[str], base: str) -> bool:
    """Pack in the copy, index in the control repository. If other refs' objects are broken, the tip alone is
    taken; True when everything was."""
    for wanted in ([*tips, *others], tips) if others else (tips,):
        if wanted == [base]:
            crashpoint("intake-packed")
            crashpoint("intake-indexed")
            return True
        with tempfile.TemporaryFile(dir=control) as pack:
            try:
                work.pack(wanted, base, pack)
            except GitError as error:
                if _MACHINE_TROUBLE.search(error.output) or error.code is None or error.code < 0:
                    raise
                if wanted == tips:
                    raise Refused(
                        "hostile_store",
                        "The session's repository is damaged: git cannot read its commits. The copy is kept.",
                        output=error.output,
                    ) from error
                continue
            pack.flush()
            pack.seek(0)
            crashpoint("intake-packed")
            if _index(control, pack, work.most_bytes, last=wanted == tips):
                crashpoint("intake-indexed")
                return wanted != tips or not others
    return False


def _index(control: Path, pack: IO[bytes], most_bytes: int, *, last: bool) -> bool:
    """False when the objects are refused and there is something else to try. Raises Refused, GitError."""
    arguments = ("index-pack", "--stdin", "--strict", f"--max-input-size={most_bytes}")
    done = git(control, *arguments, stdin=pack, ok=(0, 1, 128), timeout=900)
    if done.code == 0:
        return True
    if _MACHINE_TROUBLE.search(done.errors):
        raise GitError(["git", *arguments], done.code, done.errors)
    if last:
        raise Refused(
            "hostile_store",
            "The session's commits are refused: git's checks of their objects failed. The copy is kept.",
            output=done.errors[-4000:],
        )
    return False


def _keep(control: Path, key: str, commits: list[str]) -> dict[str, str]:
    """Give commits that do not count names that the server made, never the agent's own."""
    kept: dict[str, str] = {}
    for commit in commits:
        ref = f"{names.RECOVERED}{key}/{commit}"
        if resolve(control, commit) == commit:
            if read_ref(control, ref) is None:
                make_ref(control, ref, commit)
            kept[ref] = commit
    return kept


def _answer(
    control: Path,
    key: str,
    base: str,
    tip: str,
    *,
    notes: list[str],
    recovered: dict[str, str],
    head: str | None = None,
) -> dict[str, Any]:
    before, _ = tree_and_committer(control, base)
    tree, committer = tree_and_committer(control, tip) if tip != base else (before, "")
    return {
        "tip": tip,
        "tree": tree,
        "changed": tree != before,
        "committed_by_server": committer == SERVER_EMAIL,
        "commits": count_commits(control, base, tip) if tip != base else 0,
        "files": paths_changed(control, before, tree, limit=_MOST_FILES) if tree != before else [],
        "ref": names.session_ref(key),
        "head": head,
        "recovered": recovered,
        "notes": notes,
    }


def _format(commit: str) -> str:
    return "sha1" if len(commit) == 40 else "sha256"
