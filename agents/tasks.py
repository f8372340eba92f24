"""What django-q2 calls: load, call one service, done."""

from __future__ import annotations

from agents.services import pool, sessions


def assign(project_id: int) -> None:
    pool.auto_assign(project_id)


def stop(session_id: int) -> None:
    sessions.carry_out_stop(session_id)
