"""Which credential an agent logs in with."""

import pytest
from django.utils import timezone

from agents.models import Credential
from agents.models.credential import CredentialKind
from agents.services import logins, preflight
from tests import factories

pytestmark = pytest.mark.django_db


def test_an_agent_that_names_no_credential_takes_the_one_with_its_runtimes_name() -> None:
    project, now = factories.project(), timezone.now()
    entries = [{}, {"credential": "team"}, {"base_url": "http://127.0.0.1:9"}]
    plain, named, local = [
        factories.coder(project, number, runtime="claude-code", entry=entry)
        for number, entry in enumerate(entries)
    ]
    codex = factories.coder(project, 3, runtime="codex", entry={})
    command = factories.coder(project, 4, runtime="command", entry={"command": "true"})
    assert logins.for_agent(plain) is None and logins.hindrance(plain, now) == "", "its program says it"
    own = Credential.objects.create(name="claude-code", kind=CredentialKind.HOST_LOGIN)
    Credential.objects.create(name="command", sealed="")
    assert logins.for_agent(plain) == own
    assert [logins.for_agent(agent) for agent in (named, local, codex, command)] == [None] * 4
    assert "there is no credential 'team'" in logins.hindrance(named, now)
    assert preflight.logs_in_here("claude-code") == 1
    assert "is not logged in on" in logins.hindrance(plain, now, {"claude-code"})
    Credential.objects.filter(pk=own.pk).update(paused_for="the key was refused")
    assert "credential claude-code is paused: the key was refused" in logins.hindrance(plain, now)
