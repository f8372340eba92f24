"""Saving a session's work: the intake of its commits, and of what it left uncommitted, into the control repository.

Its own runner does it once the agent is verified dead, as the last step. What ended otherwise (stopped, killed, lost) or was not saved in that
step gets a process of its own. Either way it is confined like the session, since the copy is hostile (rules.md, Git).
"""

from __future__ import annotations

from typing import Any

from agents import conf as agents_conf
from agents.models import Session
from agents.services import deciding, plans
from agents.services.snapshots import of_work
from agents.states import Role, State
from pipeline import conf, kinds
from pipeline.handlers.chore import order
from pipeline.models import Process
from pipeline.processes import confine
from pipeline.processes.chores import chore_step
from pipeline.services import processes


def prepare_intake(session: Session, *, tries: int) -> Process:
    return processes.prepare(
        "intake",
        project=session.project,
        story=session.story,
        fence=session.fence,
        request={"session": session.pk, "tries": tries},
    )


LAST_STEP_SECONDS = 60.0
"""What the session's own runner takes for it at most: longer, and it has a page, tries and a time of its own."""


def last_step(session: Session) -> dict[str, Any]:
    """The step of the session's own runner that saves its work. Whatever comes of it, the session ended as its agent did."""
    return chore_step("intake", _request(session), timeout=LAST_STEP_SECONDS) | {
        "name": "save",
        "main": False,
        "optional": True,
    }


def saved(session: Session, process: Process) -> dict[str, Any] | None:
    """What came of that step, None = it has to be done yet. An agent that could not be stopped whole may still write in its copy."""
    said = kinds.result(process)
    return said if "failed" not in said else None


def _request(session: Session) -> dict[str, Any]:
    control, copy = conf.control_path(session.project.key), conf.copy_path(session.key)
    prefix = confine.confined(
        [],
        level=session.sandbox,
        writable=[copy],
        readable=[control / "objects"],
        hidden=conf.hidden(),
        network=False,
        cwd=copy,
    )
    return of_work(session, f"What {session.agent.name} left uncommitted") | {
        "confinement": prefix,
        "plan": str(plans.saved_at(session)) if session.role == Role.CODER else "",
        "strict_objects": not confine.is_confined(session.sandbox),
    }


class IntakeHandler(kinds.Handler):
    def spec(self, process: Process) -> dict[str, Any]:
        session = Session.objects.select_related("story", "project", "agent").get(
            pk=process.request["session"]
        )
        return order(process, "intake", _request(session), timeout=1200)

    def ended(self, process: Process) -> None:
        rows = Session.objects.select_related("story", "project", "agent")
        session = rows.filter(pk=process.request["session"]).locked()
        said = kinds.result(process)
        tries = int(process.request.get("tries", 0)) + 1
        if session.state == State.ENDED:
            from agents.services import hosting

            hosting.late_saved(session, said, tries)
            return processes.finish(process)
        if "failed" in said and tries < agents_conf.INTAKE_TRIES:
            again = prepare_intake(session, tries=tries)
            Session.objects.filter(pk=session.pk).update(saving=again)
        else:
            deciding.conclude(session, said)
        return processes.finish(process)
