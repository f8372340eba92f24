"""The life of a session after its claim: launch, following, saving its work, ending.

Each step is a process under a runner with a row of its own, so that any of them may die: the agent (kind `agent`), then the intake of its
work (kind `intake`), then the outcome in one transaction. Only states.ARROWS are walked, by `walk`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.db import transaction
from django.utils import timezone

from agents import conf as agents_conf
from agents.exceptions import MustWait
from agents.models import Agent, Session
from agents.redaction import Redactor
from agents.runtimes import get_runtime
from agents.runtimes.base import GitIdentity, Launch, LaunchRefused, Parser, ProgramMissing
from agents.services import (
    allowances,
    booking,
    conversations,
    deciding,
    judging,
    logins,
    prompting,
    saving,
    spending,
)
from agents.services.progress import Watch
from agents.states import ARROWS, State, StopCause
from pipeline import conf, events, kinds, taskqueue
from pipeline.exceptions import Refused
from pipeline.git.control import pin_base
from pipeline.kinds import NewEvent
from pipeline.models import Process, Project, Story
from pipeline.models.process import ProcessState
from pipeline.prepared import Select
from pipeline.processes import confine, copies
from pipeline.processes.logfile import NOTE, Record
from pipeline.services import processes, projects

logger = logging.getLogger("huskies.sessions")


def walk(session: Session, state: State, **values: Any) -> bool:
    """Move a session along an arrow, by compare-and-set; False when it is no longer where the arrow begins."""
    sources = [source for source, targets in ARROWS.items() if state in targets]
    changed = Session.objects.filter(pk=session.pk, state__in=sources).update(state=state, **values)
    if changed:
        session.state = state
        for name, value in values.items():
            setattr(session, name, value)
    return bool(changed)


def confinement_for(project: Project) -> str:
    """The level that a session or gate of the project runs at: the strongest of this host, lower only if an admin allows it. Raises MustWait."""
    level = confine.level_available()
    if level.name == "bubblewrap" or projects.unconfined_allowed(project):
        return level.name
    raise MustWait(
        f"agents cannot be confined here: {level.reason} Or an admin allows project {project.name} to run without (edits only)"
    )


def last_saved(story: Story) -> str:
    """The newest work on the story's present base that a session left, "" if there is none; what the next session begins from.

    A reopened story has a new base: what it did before is on the branch already.
    """
    if not story.base:
        return ""
    row = SAVED.first(story.pk, story.base)
    return row[0] if row else ""


SAVED: Select[tuple[str]] = Select(
    lambda story, base: (
        Session.objects.filter(story=story, base=base)
        .exclude(saved="")
        .order_by("-id")
        .values_list("saved")[:1]
    ),
    int,
    str,
)


def conversation_to_resume(story: Story, agent: Agent) -> Session | None:
    """The session whose conversation a new one of this agent goes on with (conversations.py)."""
    return conversations.to_resume(story, agent).session


# -- stop ----------------------------------------------------------------------------------------------------------


def request_stop(session: Session, *, by: str, cause: StopCause = StopCause.PERSON, why: str = "") -> bool:
    """Write down that it must stop (crash window 26); `carry_out_stop` does it, and the sweep repeats it. False when that was known.

    `why` is the sentence that people read. A person's stop takes the place of the server's own, never the reverse.
    """
    rows = Session.objects.live().filter(pk=session.pk)
    asked = {"stop_requested_by": by, "stop_cause": cause, "reason": why}
    changed = rows.filter(stop_requested_at=None).update(stop_requested_at=timezone.now(), **asked)
    if not changed and cause == StopCause.PERSON:
        changed = rows.exclude(stop_cause=StopCause.PERSON).update(**asked)
    taskqueue.enqueue("agents.tasks.stop", session.pk)
    return bool(changed)


def carry_out_stop(session_id: int) -> None:
    """Ask the runner to stop; a launch that has not happened yet never happens. Idempotent."""
    session = Session.objects.select_related("process").filter(pk=session_id).first()
    if (
        session is None
        or session.state == State.ENDED
        or session.stop_requested_at is None
        or session.process is None
    ):
        return
    if session.process.state == ProcessState.PREPARED:
        processes.reclaim(session.process, f"it was stopped by {session.stop_requested_by} before it began")
    elif session.process.state == ProcessState.RUNNING:
        processes.stop(
            session.process,
            grace=agents_conf.STOP_GRACE_SECONDS,
            reason=session.reason or f"stopped by {session.stop_requested_by}",
        )


def sweep() -> None:
    """What a dead task left: stops that were not heard, ends that were not concluded."""
    for pk in Session.objects.live().exclude(stop_requested_at=None).values_list("pk", flat=True):
        carry_out_stop(pk)


# -- the agent's own process -----------------------------------------------------------------------------------------


class AgentHandler(kinds.Handler):
    def spec(self, process: Process) -> dict[str, Any]:
        session = Session.objects.select_related(
            "story__project", "project", "agent", "credential", "started_by"
        ).get(process=process)
        if session.stop_requested_at is not None:
            raise Refused(f"It was stopped by {session.stop_requested_by} before it began.")
        if not walk(session, State.STARTING) and session.state != State.STARTING:
            raise Refused(f"Session {session.pk} is {session.state}; it is not started again.")
        try:
            return agent_spec(session)
        except LaunchRefused as error:
            Session.objects.filter(pk=session.pk).update(
                told={
                    "kind": "config",
                    "reason": str(error),
                    "detail": "program" if isinstance(error, ProgramMissing) else "not_begun",
                }
            )
            raise Refused(str(error)) from error

    def parser(self, process: Process) -> Parser:
        session = Session.objects.select_related("credential").get(process=process)
        redact = Redactor(logins.secrets_of(session.credential)).mask
        return get_runtime(session.runtime).parser(process.parser_state or None, redact)

    def records(self, process: Process, records: Sequence[Record]) -> list[NewEvent]:
        parser = self.parser(process)
        new: list[NewEvent] = []
        for record in records:
            found = [NewEvent(e.kind, e.body, kinds.when(record)) for e in parser.feed(record)]
            if record.stream == NOTE and not any(e.kind == "note" for e in found):
                note = kinds.as_event(record)
                found += [note] if note else []
            new += found
        watch = Watch.of(process.parser_state)
        if records:
            copy = str(conf.copy_path(process.key))
            watch.take(new, copy=copy, heard=max(record.monotonic_ns for record in records))
        process.parser_state = parser.state() | {"watch": watch.to_json()}
        return new

    def started(self, process: Process) -> None:
        session = Session.objects.select_related("story").get(process=process)
        if walk(session, State.RUNNING, started_at=timezone.now()):
            events.record(
                session.project_id, "session", story=session.story, text=f"session {session.pk} runs"
            )

    def stored(self, process: Process, new: Sequence[NewEvent], first_seq: int) -> None:
        booking.book(process, new, first_seq)

    def ended(self, process: Process) -> None:
        """The child is dead and its log is stored: judge the end, then save its work."""
        session = Session.objects.select_related("story", "project").filter(process=process).locked()
        if session.state == State.ENDED:
            return processes.finish(process)
        told = session.told or judging.judge(session, process, self.parser(process))
        walk(session, State.STOPPING, told=told)
        Session.objects.filter(pk=session.pk).update(told=told)
        session.told = told
        if conf.copy_path(session.key).exists():
            session.saving = saving.prepare_intake(session, tries=0)
            Session.objects.filter(pk=session.pk).update(saving=session.saving)
            events.record(session.project_id, "session", story=session.story)
        else:
            deciding.conclude(session, None)
        return processes.finish(process)


def agent_spec(session: Session) -> dict[str, Any]:
    """The runner's order for a session: its copy, its components' setup, then the agent, confined."""
    project, story = session.project, session.story
    runtime = get_runtime(session.runtime)
    file = projects.active_file(project)
    control, copy, own = (
        conf.control_path(project.key),
        conf.copy_path(session.key),
        conf.session_path(session.key),
    )
    launch = Launch(
        session_key=session.key,
        copy=copy,
        home=own / "home",
        tmp=own / "tmp",
        config=own / "config",
        prompt="",
        resume=session.resumed,
        conversation=session.conversation,
        model=session.model or None,
        agent_config=allowances.for_program(session.entry, spending.left(session, timezone.now())),
        level=session.sandbox,
        credential=logins.opened(session),
        story_number=story.number,
        base_branch=project.base_branch,
        story_text=story.description,
        git_identity=GitIdentity(f"huskies {session.agent.name}", f"{session.agent.name}@huskies.invalid"),
    )
    resume = conversations.to_resume(story, session.agent, session=session)
    previous, note, carried = resume.session, resume.why, []
    if previous is not None:
        carried = runtime.carry(conf.session_path(previous.key) / "config", launch)
        if not carried:  # then it begins anew in this very session
            note = f"cold: the conversation of session {previous.pk} is not on this host"
            previous = None
    prompt = prompting.prompt_for(session, previous=previous, copy=copy, file=file)
    warm = previous is not None
    launch = replace(launch, prompt=prompt, resume=warm)
    Session.objects.filter(pk=session.pk).update(prompt=prompt, resumed=warm, resume_note=note)
    command = runtime.command(launch)
    pin_base(control, session.key, session.base)
    hidden, folders = conf.hidden(), [own / "home", own / "tmp", own / "config"]
    place: dict[str, Any] = {
        "level": session.sandbox,
        "hidden": hidden,
        "network": True,
        "cwd": copy,
        "writable": [copy, *folders, *command.writable],
        "readable": [control / "objects", *command.readable],
    }
    steps: list[dict[str, Any]] = [
        {
            "name": "folders",
            "files": [
                ["mkdir", str(copy.parent)],
                ["mkdir", str(own)],
                *([["mkdir", str(f)] for f in folders]),
                *carried,
                *command.files,
            ],
        },
        *copies.copy_steps(
            control,
            copy,
            branch=story.branch,
            commit=session.base,
            object_format=project.object_format,
            resume_from=session.began_at_commit or None,
            base_branch=project.base_branch,
            base_tip=project.tip or None,
        ),
    ]
    environment = confine.allowed_environment(own / "home", own / "tmp", {})
    if session.sandbox == "bubblewrap":  # without confinement nothing of the repository is run
        steps += projects.setup_steps(file, copy=copy, environment=environment, place=place)
    steps.append(
        {
            "name": "agent",
            "main": True,
            "argv": confine.confined(command.argv, **place),
            "cwd": str(conf.home() if session.sandbox == "bubblewrap" else copy),
            "env": command.env,
            "stdin": command.stdin,
            "keep_stdin": command.keep_stdin,
            "interrupt": command.interrupt,
        }
    )
    entry = session.entry
    limits = {
        "log_bytes": min(file.output_limit, agents_conf.AGENT_LOG_BYTES),
        "on_cap": "stop",
        "grace": agents_conf.STOP_GRACE_SECONDS,
        # The inactivity that the entry allows is the watchdog's, which knows of running tools; this holds without a server too.
        "silence": max(float(entry.get("inactivity_timeout") or 300.0), agents_conf.TOOL_SILENCE_SECONDS),
        "wall": entry.get("max_session_time") or agents_conf.SESSION_WALL_SECONDS,
    }
    return {
        "version": 1,
        "key": session.key,
        "marker": {"HUSKIES_SESSION": session.key},
        "steps": steps,
        "limits": limits,
    }


def close(session: Session, *, outcome: str, reason: str, saved: str) -> bool:
    """The one way to `ended`: outcome, reason and release of the claim in the caller's transaction."""
    assert transaction.get_connection().in_atomic_block  # noqa: S101
    note = session.resume_note or "cold: its agent never began"
    done = walk(
        session,
        State.ENDED,
        resume_note=note,
        outcome=outcome,
        reason=reason,
        saved=saved,
        ended_at=timezone.now(),
    )
    if done:
        logger.info(
            "Session %s on story %s ended: %s. %s",
            session.pk,
            session.story_id,
            outcome,
            json.dumps(reason),
            extra={"action": "session_ended", "session_id": session.pk, "story_id": session.story_id},
        )
    return done
