"""The chore `candidate`: squash a story's work onto the project's newest base, without a checkout.

The same request gives the same commit, so a redo after a crash makes no second one. Request: `control`,
`source`, `source_kind`, `base_branch`, `tip`, `key`, `message`, `author` {name, email}, `date` (seconds since
the epoch)."""

from typing import Any

from pipeline.git import names, source
from pipeline.git.command import git
from pipeline.git.control import read_ref
from pipeline.git.merging import commit_tree, merge_tree
from pipeline.git.reading import is_ancestor, tree_of
from pipeline.git.refusals import Refused
from pipeline.processes.chore_fetch import check_carriable
from pipeline.processes.crashpoint import crashpoint


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Result: `base` (the tip that it stands on), `candidate`, `tree`, `same_as` (the tree of `tip`, to
    compare with what was gated), `ref`. Refused: `conflict` {files}, `empty`, `missing_base`, `rewritten`,
    `unrelated`, `submodules`, `lfs`."""
    control = names.check_folder(request["control"])
    tip, branch = names.check_commit(request["tip"]), names.check_branch(request["base_branch"])
    ref = names.merge_ref(request["key"])
    found = source.open_source(request["source"], request["source_kind"])
    base = source.fetch_base(control, found, branch)
    check_forward(control, branch, base)
    tree = merge_tree(control, base, tip)
    if tree == tree_of(control, base):
        message = f"The work changes nothing on {branch}: everything in it is there already."
        raise Refused("empty", message, base=base)
    candidate = commit_tree(
        control, tree, [base], request["message"], author=request["author"], date=int(request["date"])
    )
    check_carriable(control, candidate, "The work of this story")
    # Its own key's ref, so no compare: a plan made anew replaces the candidate that was overtaken.
    git(control, "update-ref", "-m", "huskies: candidate", "--", ref, candidate)
    crashpoint("candidate-made")
    return {"base": base, "candidate": candidate, "tree": tree, "same_as": tree_of(control, tip), "ref": ref}


def check_forward(control: Any, branch: str, upstream: str) -> None:
    """Refused `rewritten` when the project's branch no longer holds what landed: its history was changed by
    somebody."""
    ours = read_ref(control, names.branch_ref(branch))
    if ours is not None and not is_ancestor(control, ours, upstream):
        raise Refused(
            "rewritten",
            f"The project's branch {branch} was rewritten: it is at {upstream[:12]}, which does "
            f"not hold {ours[:12]}. Nothing lands until an admin has accepted the new history.",
            tip=upstream,
            base=ours,
        )
