"""The files of a running session, kept when it is warned: for the case that its working copy is lost, or cannot be trusted in the end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from agents.models import Session
from pipeline import conf, events, kinds
from pipeline import git as gits
from pipeline.handlers.chore import order
from pipeline.models import Process
from pipeline.processes import confine
from pipeline.services import processes

logger = logging.getLogger("huskies.sessions")


def take(session: Session) -> None:
    """Keep the files of a running session as they are now, in a process of its own; not without confinement (the copy is hostile)."""
    if _reading(session):
        processes.prepare(
            "snapshot",
            project=session.project,
            story=session.story,
            fence=session.fence,
            request={"session": session.pk},
        )


def as_work(session: Session) -> str:
    """Of a copy that is lost, or cannot be trusted: what was kept when its session was warned, now as the session's work; "" = nothing was."""
    if not session.snapshot:
        return ""
    control, ref = conf.control_path(session.project.key), gits.session_ref(session.key)
    try:
        if gits.read_ref(control, ref) is None:
            gits.move_ref(control, ref, session.snapshot, None, reason="huskies: from its snapshot")
    except (gits.GitError, OSError):
        logger.exception(
            "The snapshot of session %s cannot be read.", session.pk, extra={"action": "snapshot_lost"}
        )
        return ""
    return session.snapshot


def of_work(session: Session, what: str) -> dict[str, Any]:
    """What every order says that takes a session's files into the control repository."""
    return {
        "control": str(conf.control_path(session.project.key)),
        "copy": str(conf.copy_path(session.key)),
        "branch": session.story.branch,
        "base": session.base,
        "key": session.key,
        "message": f"{session.story.title}\n\n{what} in session {session.pk}.",
        "author": {
            "name": f"huskies {session.agent.name}",
            "email": f"{session.agent.name}@huskies.invalid",
        },
    }


class SnapshotHandler(kinds.Handler):
    def spec(self, process: Process) -> dict[str, Any]:
        session = Session.objects.select_related("story", "project", "agent").get(
            pk=process.request["session"]
        )
        request = of_work(session, f"What {session.agent.name} had written when it was warned")
        more = {"scratch": str(_scratch(session)), "confinement": _reading(session)}
        return order(process, "snapshot", request | more, timeout=600)

    def ended(self, process: Process) -> None:
        result = kinds.result(process).get("result") or {}
        rows = Session.objects.live().filter(pk=process.request["session"])
        if result.get("commit") and rows.update(snapshot=result["commit"]):
            text = f"session {process.request['session']}: its files are kept as {result['commit'][:12]}"
            assert process.project_id is not None  # noqa: S101
            events.record(process.project_id, "session", story=process.story, text=text)
        return processes.finish(process)


def _reading(session: Session) -> list[str]:
    """The prefix of git over a copy that it must not change; [] where nothing is confined."""
    return confine.confined(
        [],
        level=session.sandbox,
        writable=[_scratch(session)],
        readable=[conf.copy_path(session.key), conf.control_path(session.project.key) / "objects"],
        hidden=conf.hidden(),
        network=False,
        cwd=conf.copy_path(session.key),
    )


def _scratch(session: Session) -> Path:
    """Beside the session's own folders, where no agent can write."""
    return conf.session_path(session.key) / "snapshot"
