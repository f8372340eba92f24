"""A coder's plan: a file in its copy that git leaves alone, kept from session to session, and shown to people.

Sessions end before their work does. The plan is what the next one goes on from, before it looks at what was committed.
"""

from __future__ import annotations

from pathlib import Path

from agents.models import Session
from agents.redaction import Redactor
from agents.services import logins, reaching
from agents.states import Role
from pipeline import conf
from pipeline.models import Story

MOST_BYTES = 64 * 1024


def saved_at(session: Session) -> Path:
    """Where the intake puts it: no agent can write there."""
    return conf.session_path(session.key) / "plan.md"


def brought(session: Session) -> str:
    """What stands there in the session's new copy."""
    return session.story.plan if session.role == Role.CODER else ""


def keep(story: Story, session: Session) -> None:
    """The plan as this session left it is the story's, masked like everything that an agent says. One that it took away stays."""
    if session.role != Role.CODER:
        return
    try:
        raw = saved_at(session).read_bytes()[:MOST_BYTES]
    except OSError:
        return
    secrets = logins.secrets_of(session.credential)
    masked = Redactor([*secrets, reaching.token_of(session)] if secrets else []).mask(raw)
    plan = masked.decode("utf-8", "replace").replace("\0", "").strip()
    if plan and plan != story.plan:
        Story.objects.filter(pk=story.pk).update(plan=plan)
        story.plan = plan
