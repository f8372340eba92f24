"""Passes on to running agents what is written down for them: answers to their requests, and messages of people.

A row is the intent; the runner's socket takes it; the runner passes each id on once, so that telling is repeated until it is heard: by
whoever wrote the row, by the queue, by the sweep. The runner's note in the log, read with the log's offset, says that it happened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Q
from django.utils import timezone

from agents.models import Message, PermissionRequest, Session
from agents.models.permission import ANSWERED, Asking, Said
from agents.runtimes import get_runtime
from agents.runtimes.base import Decision, Runtime
from agents.services import permissions
from agents.states import State
from pipeline import conf, events
from pipeline.logevents import NewEvent
from pipeline.models import Process
from pipeline.models.process import ProcessState
from pipeline.prepared import Select
from pipeline.services import processes

MARK = re.compile(r"(message|answer)-(\d{1,18})")
"""Under which the runner is told something; its note in the log repeats it."""


def tell(session_id: int) -> None:
    """Everything that waits for one session of this host. Idempotent; what is not heard stays for the sweep."""
    session = Session.objects.select_related("process").filter(pk=session_id).first()
    process = session.process if session is not None else None
    if session is None or process is None or process.host != conf.host():
        return
    if process.state != ProcessState.RUNNING:
        return
    runtime = get_runtime(session.runtime)
    for row in session.requests.filter(state__in=ANSWERED, told_at=None).order_by("id"):
        _answer(runtime, process, row)
    for message in session.messages.filter(state=Said.WAITING, told_in=None).order_by("id"):
        _say(runtime, process, message)


def _answer(runtime: Runtime, process: Process, row: PermissionRequest) -> None:
    decision = Decision(
        row.state == Asking.ALLOWED, "session" if row.scope == "session" else "once", row.reason
    )
    line = runtime.answer(row.as_event(), decision)
    if line is None or processes.tell(process, line, mark=f"answer-{row.pk}", asked=True):
        PermissionRequest.objects.filter(pk=row.pk, told_at=None).update(told_at=timezone.now())


def _say(runtime: Runtime, process: Process, message: Message) -> None:
    line = runtime.message(spoken(message))
    mark = f"message-{message.pk}"
    if line is not None and processes.tell(process, line, mark=mark, interrupt=message.interrupts):
        told(Message.objects.filter(pk=message.pk), message.session)


def told(rows: Iterable[Message], session: Session) -> None:
    """They were passed on in this session; the first word counts."""
    keys = [row.pk for row in rows]
    if not keys:
        return
    Message.objects.filter(pk__in=keys, state=Said.WAITING).update(
        state=Said.TOLD, told_at=timezone.now(), told_in=session
    )


def spoken(message: Message) -> str:
    """As the agent reads it: whose words these are, and that they are a person's."""
    return f"{message.author}, a person who follows your work, says:\n\n{message.text}"


# -- the prompt ----------------------------------------------------------------------------------------------------


UNHEARD: Select[tuple[int]] = Select(
    lambda story, agent: Message.objects.filter(
        state=Said.WAITING, session__story=story, session__agent=agent
    ).values_list("pk")[:1],
    int,
    int,
)


def for_prompt(session: Session) -> list[Message]:
    """What people wrote to this agent on this story that it has not heard: from here on this session's to tell."""
    if not UNHEARD(session.story_id, session.agent_id):  # without a lock, as nearly always there is nothing
        return []
    rows = Message.objects.filter(state=Said.WAITING)
    mine = rows.filter(session__story=session.story_id, session__agent=session.agent_id, told_in=None)
    mine.update(told_in=session)
    return list(rows.filter(told_in=session).order_by("id"))


IN_PROMPT: Select[Message] = Select(
    lambda session: Message.objects.filter(told_in=session, state=Said.WAITING), int
)


def begun(session: Session) -> None:
    """Its agent has its prompt."""
    told(IN_PROMPT(session.pk), session)


def given_back(session: Session) -> None:
    """It ended: what it was to be told and was not, the next one is."""
    if IN_PROMPT(session.pk):
        session.heard.filter(state=Said.WAITING).update(told_in=None)


# -- the log -------------------------------------------------------------------------------------------------------


def shown(process: Process, new: list[NewEvent]) -> list[NewEvent]:
    """The events, with what the runner passed on in the place of its notes: the words of people (`said`), their answers (`answered`)."""
    notes = [one for one in new if one.kind == "note"]
    marks = [found for one in notes if (found := MARK.fullmatch(_mark_of(one)))]
    if not marks:
        return new
    bodies: dict[str, tuple[str, dict[str, Any]]] = {}
    messages = [found[2] for found in marks if found[1] == "message"]
    for row in Message.objects.filter(pk__in=messages, session__process=process):
        bodies[f"message-{row.pk}"] = ("said", {"row": row.pk, "by": row.author, "text": row.text})
    answers = [found[2] for found in marks if found[1] == "answer"]
    for one in PermissionRequest.objects.filter(pk__in=answers, session__process=process):
        text = f"{permissions.label(one)}: {one.get_state_display()} ({one.answered_by}) {one.reason}".strip()
        body = {"row": one.pk, "id": one.request_id, "by": one.answered_by, "text": text}
        bodies[f"answer-{one.pk}"] = ("answered", body)
    return [NewEvent(*bodies[mark], one.at) if (mark := _mark_of(one)) in bodies else one for one in new]


def _mark_of(event: NewEvent) -> str:
    """The id of what the runner passed on, "" for any other event."""
    return (
        str(event.body.get("id", "")) if event.kind == "note" and event.body.get("note") == "message" else ""
    )


def take(process: Process, new: Sequence[NewEvent]) -> None:
    """In the batch's transaction: what its log says was passed on. A batch without any of it costs no query."""
    said = [one.body["row"] for one in new if one.kind == "said"]
    answered = [one.body["row"] for one in new if one.kind == "answered"]
    if answered:
        PermissionRequest.objects.filter(pk__in=answered, told_at=None).update(told_at=timezone.now())
    if said:
        session = Session.objects.select_related("story").get(process=process)
        told(session.messages.filter(pk__in=said), session)
        events.record(session.project_id, "session", story=session.story)


# -- the sweep -----------------------------------------------------------------------------------------------------


def sweep() -> None:
    """What nobody told yet, of the sessions of this host."""
    answers = Q(requests__state__in=ANSWERED, requests__told_at=None)
    words = Q(messages__state=Said.WAITING, messages__told_in=None)
    live = Session.objects.live().filter(state__in=[State.STARTING, State.RUNNING], host=conf.host())
    for pk in {
        *live.filter(answers).values_list("pk", flat=True),
        *live.filter(words).values_list("pk", flat=True),
    }:
        tell(pk)
