"""Which prompt a session gets: the whole story for a new conversation, only what is new for one that goes on."""

from __future__ import annotations

from pathlib import Path

from agents.models import Session
from agents.runtimes import prompts
from pipeline.projectfile import ProjectFile
from pipeline.projectfile.schema import command_label


def prompt_for(session: Session, *, warm: bool, copy: Path, file: ProjectFile) -> str:
    """`warm`: the conversation goes on. A message is never empty: with nothing to say it is asked to go on."""
    story = session.story
    gate = command_label(file.gate.command) if file.gate else None
    said, kind = story.next_prompt, story.next_kind
    if warm:
        if kind == "gate":
            most = file.max_retries
            left = max(0, most - story.retries) if most else None
            return prompts.resume_prompt(
                said, gate_command=gate, copy=copy, branch=story.branch, tries_left=left
            )
        if kind == "nothing":
            return prompts.nothing_changed_prompt(
                copy=copy, branch=story.branch, base_branch=session.project.base_branch
            )
        if kind == "notes":
            return prompts.notes_prompt(said, copy=copy, branch=story.branch, gate_command=gate)
        return prompts.continue_prompt(copy=copy, branch=story.branch, cause=said or "its turn was not over")
    return prompts.default_prompt(
        number=story.number,
        title=story.title,
        description=story.description,
        criteria=list(story.criteria.values_list("text", flat=True)),
        kind=story.kind,
        role=session.role,
        base_branch=session.project.base_branch,
        branch=story.branch,
        gate_command=gate,
        copy=copy,
        may_run=session.sandbox == "bubblewrap",
        instructions=str(session.entry.get("prompt") or ""),
        notes=said,
    )
