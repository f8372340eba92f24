"""The chore `snapshot`: keep the files that a session has written so far, while its agent goes on working.

Nothing in the copy's own `.git` is read, since the agent may have planted there what git would obey: a `.git` of ours is made in a folder that
no agent can write, and the copy, which git may only read, is its work tree. So what is kept is one commit on the session's base, at
`refs/huskies/snapshots/<key>`; a later one takes its place. Commits of the agent's own are in it as files. Request: `control`, `copy`,
`scratch` (a folder that is made and removed), `branch`, `base`, `key`, `message`, `author`, `confinement` (a command prefix), and optionally
`limit` (seconds for each command), `most_bytes`."""

import shutil
from typing import Any

from pipeline.git import names
from pipeline.git.control import move_ref, object_format, read_ref
from pipeline.processes import copies_store
from pipeline.processes.chore_intake import LIMIT, MOST_BYTES, take_in
from pipeline.processes.copies_work import RunningCopyGit


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Result: `commit` ("" = nothing was written yet), `left_out` (paths that were not kept). Refused: `too_large`, `hostile_store`."""
    control, copy, scratch = (names.check_folder(request[name]) for name in ("control", "copy", "scratch"))
    key, base = names.check_key(request["key"]), names.check_commit(request["base"])
    branch = names.check_branch(request["branch"])
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700, parents=True)
    try:
        copies_store.mend(scratch, control, branch=branch, base=base, object_format=object_format(control))
        work = RunningCopyGit(
            copy,
            request["confinement"],
            store=scratch,
            limit=float(request.get("limit") or LIMIT),
            most_bytes=int(request.get("most_bytes") or MOST_BYTES),
        )
        commit = work.snapshot(base, request["message"], request["author"])
        if commit is not None:
            take_in(control, work, [commit], [], base)
            ref = names.snapshot_ref(key)
            move_ref(control, ref, commit, read_ref(control, ref), reason="huskies: snapshot")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {"commit": commit or "", "left_out": [*work.nested, *work.skipped]}
