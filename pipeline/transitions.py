"""The arrows: every way from stage to stage, with who may walk it. Nothing else says which move exists.

`moves.py` walks them; buttons, commands, the diagram in the README and the tests read the same table.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.stages import Stage

S = Stage


@dataclass(frozen=True, slots=True)
class Verb:
    """One arrow. `target` None: the place from which it was blocked. `may`: the row of roles.MAY, None = the server alone.

    `stops_work`: what runs on the story is stopped first (a person took it out of the server's hands).
    """

    name: str
    label: str
    sources: tuple[Stage, ...]
    target: Stage | None
    may: str | None = None
    help: str = ""
    asks_why: bool = False
    stops_work: bool = False


_TABLE = (
    Verb(
        "start",
        "Start",
        (S.BACKLOG,),
        S.CODING,
        "story.start",
        "Give it to an agent now, or as soon as one is free.",
    ),
    Verb(
        "deps_met",
        "Dependencies met",
        (S.BACKLOG,),
        S.CODING,
        None,
        "All that it depends on is done or archived.",
    ),
    Verb("to_qa", "To QA", (S.CODING,), S.QA, None, "The gate is green; someone looks at it."),
    Verb("to_merge", "To merge", (S.CODING,), S.MERGE, None, "The gate is green and no QA is asked for."),
    Verb(
        "approve",
        "Approve",
        (S.QA,),
        S.MERGE,
        "story.approve",
        "Land it on the base branch.",
        stops_work=True,
    ),
    Verb(
        "reject",
        "Reject",
        (S.QA,),
        S.CODING,
        "story.reject",
        "Back to the coder with your notes.",
        asks_why=True,
        stops_work=True,
    ),
    Verb(
        "merge_failed", "Merge failed", (S.MERGE,), S.MERGE_FAILURE, None, "It could not be landed as it is."
    ),
    Verb(
        "retry_merge",
        "Retry merge",
        (S.MERGE_FAILURE,),
        S.MERGE,
        "story.retry_merge",
        "Try to land it again.",
    ),
    Verb(
        "send_back",
        "Back to the coder",
        (S.QA, S.MERGE, S.MERGE_FAILURE),
        S.CODING,
        "story.send_back",
        "The coder gets the reason and goes on in the same conversation.",
        stops_work=True,
    ),
    Verb("land", "Landed", (S.MERGE, S.MERGE_FAILURE), S.DONE, None, "Its change is on the base branch."),
    Verb(
        "block",
        "Block",
        (S.BACKLOG, S.CODING, S.QA, S.MERGE, S.MERGE_FAILURE),
        S.BLOCKED,
        "story.block",
        "Nothing happens until someone unblocks it.",
        asks_why=True,
        stops_work=True,
    ),
    Verb(
        "unblock", "Unblock", (S.BLOCKED,), None, "story.unblock", "Back to where it was, with all retries."
    ),
    Verb(
        "park",
        "Back to backlog",
        (S.CODING, S.QA, S.MERGE, S.MERGE_FAILURE, S.BLOCKED),
        S.BACKLOG,
        "story.park",
        "Its work is kept; nothing runs.",
        stops_work=True,
    ),
    Verb(
        "archive",
        "Archive",
        tuple(s for s in Stage if s != S.ARCHIVED),
        S.ARCHIVED,
        "story.archive",
        "Out of the flow; its work and history are kept.",
        stops_work=True,
    ),
    Verb("restore", "Restore", (S.ARCHIVED,), S.BACKLOG, "story.restore", "Back to the backlog."),
    Verb(
        "reopen",
        "Reopen",
        (S.DONE,),
        S.CODING,
        "story.reopen",
        "More work on the same story, from today's base branch.",
        asks_why=True,
    ),
)

VERBS: dict[str, Verb] = {verb.name: verb for verb in _TABLE}


def person_verbs(stage: str) -> list[Verb]:
    """The arrows out of a stage that people may walk, in the table's order."""
    return [verb for verb in _TABLE if verb.may and stage in verb.sources]


def verb_towards(stage: str, target: str) -> Verb | None:
    """How a person moves a story from a stage to another: the first arrow that fits."""
    for verb in person_verbs(stage):
        if verb.target == target:
            return verb
    return None
