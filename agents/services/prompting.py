"""Which prompt a session gets: the whole story for a new conversation, only what is new for one that goes on. Recent events stand before it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.models import Session
from agents.runtimes import prompts
from agents.services import guidance as guiding
from agents.services import news
from agents.states import Role
from agents.templates import filled
from pipeline import conf
from pipeline.processes import confine
from pipeline.processes.copies import PLAN
from pipeline.projectfile import ProjectFile
from pipeline.projectfile.schema import command_label

NAMES = {
    "gate": "The end of the gate's output on the work so far",
    "nothing": "What the last session came to",
    "continue": "Why the last session ended early",
}
TEXTS = ("title", "description", "criteria")


def prompt_for(
    session: Session,
    *,
    previous: Session | None,
    copy: Path,
    file: ProjectFile,
    said: Sequence[str] = (),
) -> str:
    """`previous`: the session whose conversation goes on; `said`: what people wrote to the agent since.

    A message is never empty: with nothing to say it is asked to go on.
    """
    if previous is None:
        told = _first(session, copy, file)
    else:
        told = _next(session, previous, copy, file, spoken_to=bool(said))
        told += f"\n{_plan(session, copy)}\n" if session.story.plan else ""
    return "\n\n".join(part for part in (news.block(session), *said, told) if part)


def filled_entry(session: Session, copy: Path) -> dict[str, Any]:
    """The agent's entry with its templates filled for this session."""
    values = {
        "story_id": str(session.story.number),
        "worktree_path": str(copy),
        "base_branch": session.project.base_branch,
    }
    written = {key: session.entry.get(key) for key in ("prompt", "system_prompt")}
    return {**session.entry, **{key: filled(str(text), values) for key, text in written.items() if text}}


def _plan(session: Session, copy: Path) -> str:
    """What a coder is told of its plan."""
    if session.role != Role.CODER:
        return ""
    return prompts.plan_sentence(copy / PLAN, begun=bool(session.story.plan))


def _first(session: Session, copy: Path, file: ProjectFile) -> str:
    story = session.story
    guidance = guiding.of(conf.control_path(session.project.key), session.base)
    return prompts.default_prompt(
        number=story.number,
        title=story.title,
        description=story.description,
        criteria=list(story.criteria.values_list("text", flat=True)),
        kind=story.kind,
        role=session.role,
        base_branch=session.project.base_branch,
        branch=story.branch,
        gate_command=command_label(file.gate.command) if file.gate else None,
        copy=copy,
        may_run=confine.is_confined(session.sandbox),
        house=guidance.text,
        to_read=guidance.to_read,
        instructions=str(filled_entry(session, copy).get("prompt") or ""),
        plan=_plan(session, copy),
        notes=story.next_prompt,
        notes_name=NAMES.get(story.next_kind, prompts.NOTES),
    )


def _next(session: Session, previous: Session, copy: Path, file: ProjectFile, *, spoken_to: bool) -> str:
    story = session.story
    gate = command_label(file.gate.command) if file.gate else None
    said, kind = story.next_prompt, story.next_kind
    if kind == "gate":
        left = max(0, file.max_retries - story.retries) if file.max_retries else None
        told = prompts.resume_prompt(said, gate_command=gate, copy=copy, branch=story.branch, tries_left=left)
    elif kind == "nothing":
        told = prompts.nothing_changed_prompt(
            copy=copy, branch=story.branch, base_branch=session.project.base_branch
        )
    elif kind == "notes":
        told = prompts.notes_prompt(said, copy=copy, branch=story.branch, gate_command=gate)
    elif spoken_to and not said:
        told = prompts.where(copy, story.branch)
    else:
        told = prompts.continue_prompt(copy=copy, branch=story.branch, cause=said or "its turn was not over")
    edits = story.changes.filter(verb="edit", at__gte=previous.created_at).values_list("why", flat=True)
    if not any(name in why for why in edits for name in TEXTS):
        return told
    text = prompts.story_text(
        number=story.number,
        title=story.title,
        description=story.description,
        criteria=list(story.criteria.values_list("text", flat=True)),
        kind=story.kind,
    )
    return "\n\n".join(["The story was changed since your last session. It reads now:", *text, told])
