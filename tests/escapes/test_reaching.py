"""Which sessions get a sidecar, and what is said of their key."""

from __future__ import annotations

from typing import Any

import pytest

from agents.models import Session
from agents.runtimes.base import LaunchRefused
from agents.services import credentials, pool, reaching
from pipeline import conf
from tests import factories
from tests.e2e.shop import Shop
from tests.factories import ALICE

pytestmark = [pytest.mark.needs_bubblewrap]


def claimed(shop: Shop, kind: str = "", **entry: Any) -> Session:
    """A session that was claimed and has not begun, of an agent with this entry; `kind`: with such a credential."""
    project = shop.open()
    agent = project.agents.get(name="coder-1")
    if kind:
        value = "" if kind == "host_login" else "sk-secret"
        urls = [entry["base_url"]] if "base_url" in entry else []
        credentials.add_credential("team", kind=kind, value=value, base_urls=urls, actor=ALICE)
        entry |= {"credential": "team"}
    agent.runtime = entry.get("runtime", agent.runtime)
    agent.entry |= entry
    agent.save()
    session = pool.start_story(factories.story(project), actor=ALICE).session
    assert session is not None
    return Session.objects.select_related("project", "story", "agent", "credential").get(pk=session.pk)


COMMAND = {"runtime": "command", "command": "true"}


@pytest.mark.parametrize(
    ("kind", "entry", "helpers", "note"),
    [
        ("", {}, 0, reaching.NO_KEY),
        ("", COMMAND, 0, reaching.NO_KEY),
        ("", {"network": "off"}, 0, reaching.NO_KEY),
        ("", {"network": {"allow": ["pypi.org"]}}, 1, reaching.NO_KEY),
        ("api_key", COMMAND | {"base_url": "http://127.0.0.1:9"}, 1, reaching.TOKEN_ONLY),
    ],
)
def test_only_who_needs_a_sidecar_has_one(
    shop: Shop, kind: str, entry: dict[str, Any], helpers: int, note: str
) -> None:
    session = claimed(shop, kind, **entry)
    way = reaching.way_of(session, conf.session_path(session.key))
    assert len(way.helpers) == helpers and reaching.key_note(session) == note
    assert way.credential is None or way.credential.value != "sk-secret"


def test_a_key_that_goes_nobody_knows_where_is_readable_and_said_to_be(shop: Shop) -> None:
    session = claimed(shop, "api_key", **COMMAND)
    session.credential.base_urls = []
    assert reaching.key_is_readable(session) and reaching.key_note(session) == reaching.READABLE_KEY


def test_a_log_in_of_the_host_is_readable_said_to_be_and_refused_without_a_network(shop: Shop) -> None:
    session = claimed(shop, "host_login", runtime="claude-code", network="off")
    assert reaching.key_is_readable(session) and reaching.key_note(session) == reaching.READABLE_LOGIN
    with pytest.raises(LaunchRefused, match="the host's own log-in"):
        reaching.way_of(session, conf.session_path(session.key))
    session.entry["network"] = {"allow": ["pypi.org"]}
    (helper,) = reaching.way_of(session, conf.session_path(session.key)).helpers
    assert '"host": "api.anthropic.com"' in helper["stdin"]
