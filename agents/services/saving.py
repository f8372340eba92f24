"""Saving a session's work: the intake of its commits, and of what it left uncommitted, into the control repository.

It is a process of its own, after the agent's is verified dead: confined like the session, since the copy is hostile (rules.md, Git).
"""

from __future__ import annotations

from typing import Any

from agents import conf as agents_conf
from agents.models import Session
from agents.services import deciding
from agents.services.snapshots import of_work
from agents.states import State
from pipeline import conf, kinds
from pipeline.handlers.chore import order
from pipeline.models import Process
from pipeline.processes import confine
from pipeline.services import processes


def prepare_intake(session: Session, *, tries: int) -> Process:
    return processes.prepare(
        "intake",
        project=session.project,
        story=session.story,
        fence=session.fence,
        request={"session": session.pk, "tries": tries},
    )


class IntakeHandler(kinds.Handler):
    def spec(self, process: Process) -> dict[str, Any]:
        session = Session.objects.select_related("story", "project", "agent").get(
            pk=process.request["session"]
        )
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
        by_itself = (session.told or {}).get("kind") in ("done", "turn_limit", "budget")
        request = of_work(session, f"What {session.agent.name} left uncommitted") | {
            "mode": "commit" if by_itself else "save",
            "confinement": prefix,
            "strict_objects": not confine.is_confined(session.sandbox),
        }
        return order(process, "intake", request, timeout=1200)

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
