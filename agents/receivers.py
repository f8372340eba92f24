"""What agents do when the pipeline tells news. Receivers run inside the teller's transaction and only write rows."""

from __future__ import annotations

from typing import Any

from agents.agentfile import agents_of
from agents.models import Agent, Budget, Session
from agents.models.limit import Scope
from agents.services import deciding, sessions
from pipeline import signals, taskqueue
from pipeline.models import GateRun, Project, Story
from pipeline.projectfile import ProjectFile
from pipeline.transitions import Verb


def connect() -> None:
    signals.project_file_active.connect(sync_agents, dispatch_uid="agents.sync")
    signals.work_must_stop.connect(stop_work, dispatch_uid="agents.stop")
    signals.stage_changed.connect(look_for_work, dispatch_uid="agents.look")
    signals.story_deleted.connect(forget_story, dispatch_uid="agents.forget")
    signals.gate_verdict.connect(after_gate, dispatch_uid="agents.gate")


def sync_agents(sender: Any, *, project: Project, file: ProjectFile, **_: Any) -> None:
    """The rows follow the file: an entry that is gone takes nothing new, and its running session goes on."""
    named = []
    for position, entry in enumerate(agents_of(file)):
        named.append(entry.name)
        Agent.objects.update_or_create(
            project=project,
            name=entry.name,
            defaults={
                "role": entry.role,
                "runtime": entry.runtime,
                "model": entry.model or "",
                "entry": entry.to_json(),
                "position": position,
                "configured": True,
            },
        )
    # A pause of the server's may be over with a new file (a bad model, say); a person's is theirs to end.
    Agent.objects.filter(project=project, name__in=named, paused_by="").update(paused_for="")
    Agent.objects.filter(project=project).exclude(name__in=named).update(configured=False)
    taskqueue.enqueue("agents.tasks.assign", project.pk)


def stop_work(sender: Any, *, story: Story, actor: Any, why: str, **_: Any) -> None:
    for session in story.sessions.live():
        sessions.request_stop(session, by=actor.name)


def forget_story(sender: Any, *, story: Story, **_: Any) -> None:
    Budget.objects.filter(scope=Scope.STORY, subject=str(story.pk)).delete()


def look_for_work(sender: Any, *, story: Story, verb: Verb, **_: Any) -> None:
    """A story that came or went frees an agent, or wants one. Who starts a story claims for it in the same transaction."""
    if verb.name != "start":
        taskqueue.enqueue("agents.tasks.assign", story.project_id)


def works_on(story_id: int) -> bool:
    """For whoever deletes a story: a session holds its claim until its end is written."""
    return Session.objects.live().filter(story_id=story_id).exists()


def after_gate(sender: Any, *, run: GateRun, **_: Any) -> None:
    deciding.after_red_gate(run)


def agent_trailers(story: Story) -> list[tuple[str, str]]:
    """For the landed commit: who worked on it, each once."""
    names = story.sessions.exclude(saved="").order_by("id").values_list("agent__name", flat=True)
    return [("Agent", name) for name in dict.fromkeys(names)]
