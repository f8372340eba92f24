"""The chore `probe`: after a crash or an answer that never came, see whether a candidate landed.

A local checkout that a killed landing left half-way is settled first. Request: `control`, `source`,
`source_kind`, `base_branch`, `candidate`."""

from typing import Any

from pipeline.git import checkout, names, source
from pipeline.git.reading import is_ancestor, resolve


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Result: `reachable` (from the project's branch), `tip`. Refused: `missing_base`, and `dirty` {files} or
    `locked` when a person's file or lock keeps a half-way checkout from being settled."""
    control = names.check_folder(request["control"])
    branch, candidate = names.check_branch(request["base_branch"]), names.check_commit(request["candidate"])
    found = source.open_source(request["source"], request["source_kind"])
    if found.work_tree and checkout.checked_out_at(found, branch) == [found.work_tree]:
        source.check_owner(found)
        checkout.settle(found, branch)
    tip = source.fetch_base(control, found, branch)
    known = resolve(control, candidate) is not None
    return {"reachable": known and is_ancestor(control, candidate, tip), "tip": tip}
