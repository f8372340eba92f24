"""The chore `land`: move the project's own branch from the tip that was gated to the candidate, or not at
all.

Remote: a push with a lease. Local and not checked out (or bare): objects, then a compare-and-swap of the ref.
Checked out: `git/checkout.py`. Safe to repeat. Request: `control`, `source`, `source_kind`, `base_branch`,
`expected`, `candidate`, `key`."""

from typing import Any

from pipeline.git import checkout, names, source
from pipeline.git.control import read_ref
from pipeline.git.reading import is_ancestor
from pipeline.git.refusals import Refused
from pipeline.processes.crashpoint import crashpoint


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Result: `landed` true, `commit`, `tip`. Refused: `moved` {tip}, `dirty` {files}, `busy` {what},
    `locked`, `rejected` {output}, `checked_out_elsewhere`, `foreign_owner`, `missing_base`, `no_access`."""
    control = names.check_folder(request["control"])
    branch, ref = names.check_branch(request["base_branch"]), names.merge_ref(request["key"])
    expected, candidate = names.check_commit(request["expected"]), names.check_commit(request["candidate"])
    if read_ref(control, ref) != candidate or not is_ancestor(control, expected, candidate):
        message = f"The candidate {candidate[:12]} is overtaken: it does not wait at {ref}. Plan it anew."
        raise Refused("overtaken", message)
    found = source.open_source(request["source"], request["source_kind"])
    tip = source.read_heads(found).branches.get(branch)
    if tip is None:
        raise Refused("missing_base", f"The repository {found.address} has no branch {branch} any more.")
    here = checkout.checked_out_at(found, branch) if found.local else []
    if found.local:
        source.check_owner(found)
    if found.work_tree and here == [found.work_tree]:
        checkout.settle(found, branch, going_for=candidate if tip == expected else None)
    if tip != expected:
        fetched = source.fetch_base(control, found, branch)
        if is_ancestor(control, candidate, fetched):
            return {"landed": True, "commit": candidate, "tip": fetched}
        _moved(found, branch, fetched)
    if found.local:
        _land_here(control, found, branch, ref, expected, candidate, [str(folder) for folder in here])
    else:
        crashpoint("land-before-swap")
        try:
            source.push_candidate(control, found, branch, candidate, expected)
        except Refused as refused:
            if refused.kind == "moved":
                _moved(found, branch, source.read_heads(found).branches.get(branch))
            raise
        crashpoint("land-after-swap")
    return {"landed": True, "commit": candidate, "tip": candidate}


def _land_here(
    control: Any, found: source.Source, branch: str, ref: str, expected: str, candidate: str, here: list[str]
) -> None:
    elsewhere = [folder for folder in here if folder != str(found.work_tree)]
    if elsewhere:
        message = (
            f"The branch {branch} of {found.address} is checked out in another worktree, {elsewhere[0]}: "
            "switch that one to another branch; landing is tried again."
        )
        raise Refused("checked_out_elsewhere", message, folder=elsewhere[0])
    checkout.check_idle(found, branch)
    source.bring_candidate(control, found, ref, candidate)
    if here:
        checkout.fast_forward(found, branch, expected, candidate)
        return
    crashpoint("land-before-swap")
    if not source.swap_local(found, branch, candidate, expected):
        _moved(found, branch, source.local_tip(found, branch))
    crashpoint("land-after-swap")


def _moved(found: source.Source, branch: str, tip: str | None) -> None:
    raise Refused(
        "moved", f"{branch} of {found.address} moved meanwhile; the work is merged and gated again.", tip=tip
    )
