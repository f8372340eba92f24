"""What django-q2 calls: load, call one service, done."""

from __future__ import annotations

from agents.services import assigning, sessions, telling


def assign(project_id: int) -> None:
    """Something changed in a project; what it frees may serve another one."""
    assigning.auto_assign()


def stop(session_id: int) -> None:
    sessions.carry_out_stop(session_id)


def tell(session_id: int) -> None:
    telling.tell(session_id)
