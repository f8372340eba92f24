"""The commands of people and scripts: shapes of their JSON, sentences of their refusals."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from agents.models import Agent, Credential
from agents.sealing import SealBroken, unseal
from agents.services.credentials import allowed, rotate_seal
from huskies_site import loginlinks
from pipeline import conf
from pipeline.actors import OPERATOR_ON_HOST
from pipeline.commands import plain
from pipeline.datafolder import prepare
from pipeline.models import Membership, Project
from pipeline.roles import Role
from tests.factories import capacity

pytestmark = pytest.mark.django_db(transaction=True)

STORY = {
    "project",
    "number",
    "kind",
    "title",
    "stage",
    "frozen",
    "priority",
    "depends_on",
    "waiting_for",
    "agent",
    "session",
    "commit",
    "cost_usd",
}
AGENT = {
    "name",
    "project",
    "role",
    "runtime",
    "model",
    "state",
    "story",
    "session",
    "since",
    "throttled",
    "why",
}
VALUE = "sk-test-0123456789-abcdefghij"


@pytest.fixture(autouse=True)
def data_folder() -> None:
    prepare(conf.home())
    capacity()


@pytest.fixture
def project() -> Project:
    return Project.objects.create(
        name="web", key=conf.new_key(), source="/srv/web", state="ready", tip="a" * 40, base_branch="main"
    )


def run(*words: str) -> Any:
    out = io.StringIO()
    call_command(*words, "--json", stdout=out, stderr=io.StringIO())
    return json.loads(out.getvalue())


def add_credential(monkeypatch: pytest.MonkeyPatch, *words: str, value: str = VALUE) -> Any:
    monkeypatch.setattr("sys.stdin", io.StringIO(value + "\n"))
    return run("credential", "add", *words)


def test_a_title_may_be_given_as_an_option_too(project: Project) -> None:
    assert run("story", "create", "--project", "web", "--title", "Add power")["title"] == "Add power"
    with pytest.raises(CommandError, match="title"):
        run("story", "create")


def test_a_story_has_the_shape_that_scripts_rely_on(project: Project) -> None:
    made = run("story", "create", "Add power", "--criterion", "it works")
    assert set(made) == STORY
    assert made == run("story", "list")[0] and made | {"plan": ""} == run("story", "show", "web/1")
    assert (made["project"], made["number"], made["stage"], made["cost_usd"]) == (
        "web",
        1,
        "backlog",
        "0.000000",
    )
    assert made["agent"] is made["session"] is made["commit"] is made["waiting_for"] is None


def test_start_without_a_free_coder_keeps_the_move_and_says_why(project: Project) -> None:
    run("story", "create", "Add power")
    with pytest.raises(CommandError, match="no coder agent"):
        run("story", "start", "1")
    assert run("story", "show", "1")["stage"] == "backlog"
    Agent.objects.create(project=project, name="coder-1", role="coder", runtime="scripted", paused_for="ill")
    started = run("story", "start", "1")
    assert (started["stage"], started["session"]) == ("coding", None)
    assert started["queued"] == "coder-1 is paused: ill"
    with pytest.raises(CommandError, match="already waits"):
        run("story", "start", "1")


def test_a_bare_number_that_fits_two_projects_is_refused(project: Project) -> None:
    Project.objects.create(name="api", key=conf.new_key(), source="/srv/api", state="ready")
    for name in ("web", "api"):
        run("story", "create", "Same", "--project", name)
    with pytest.raises(CommandError, match="fits several projects: "):
        run("story", "show", "1")
    assert run("story", "show", "api/1")["project"] == "api"
    with pytest.raises(CommandError, match="Name the project"):
        run("story", "create", "Same")


def test_people_walk_the_arrows_by_commands(project: Project) -> None:
    run("story", "create", "Add power")
    assert run("story", "freeze", "1")["frozen"] is True
    assert run("story", "unfreeze", "1")["frozen"] is False
    with pytest.raises(CommandError, match="say why"):
        run("story", "block", "1")
    blocked = run("story", "block", "1", "the API is not decided")
    assert blocked["stage"] == "blocked" and "the API is not decided" in blocked["waiting_for"]
    assert run("story", "unblock", "1")["stage"] == "backlog"
    assert "held" in run("story", "hold", "1", "--why", "later")["waiting_for"]
    assert run("story", "move", "1", "archived")["stage"] == "archived"
    assert run("story", "list") == []
    with pytest.raises(CommandError, match="Nothing runs"):
        run("story", "stop", "1")


def test_agents_have_the_shape_that_scripts_rely_on(project: Project) -> None:
    Agent.objects.create(project=project, name="coder-1", role="coder", runtime="scripted")
    found = run("agent", "list")
    assert set(found[0]) == AGENT
    assert (found[0]["state"], found[0]["story"]) == ("free", None)
    assert run("session", "list") == []
    with pytest.raises(CommandError, match="no session 7"):
        run("session", "show", "7")


def test_a_credential_is_not_in_the_database_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = add_credential(monkeypatch, "main", "--url", "https://Gateway.example.org:443/v1")
    assert VALUE not in json.dumps(shown)
    row = Credential.objects.get(name="main")
    assert row.base_urls == ["https://gateway.example.org"]
    assert unseal(row.sealed) == VALUE
    if connection.vendor == "sqlite":
        file = Path(connection.settings_dict["NAME"])
        stored = b"".join(path.read_bytes() for path in file.parent.glob(file.name + "*"))
        assert row.sealed.encode() in stored
        assert VALUE.encode() not in stored
    assert (conf.home() / "seal.key").stat().st_mode & 0o777 == 0o600
    assert VALUE not in json.dumps(run("credential", "list"))


def test_a_new_seal_opens_what_the_old_one_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    add_credential(monkeypatch, "main")
    before = Credential.objects.get(name="main").sealed
    assert rotate_seal(actor=OPERATOR_ON_HOST) == 1
    assert unseal(Credential.objects.get(name="main").sealed) == VALUE
    with pytest.raises(SealBroken, match="another key"):
        unseal(before)


@pytest.mark.parametrize("value", ["", "two words", "sk-\x1b[31m", "\N{SNOWMAN}"])
def test_what_is_no_key_is_refused_without_repeating_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with pytest.raises(CommandError) as refused:
        add_credential(monkeypatch, "main", value=value)
    assert not value or value not in str(refused.value)
    assert not Credential.objects.exists()


def test_an_existing_credential_is_replaced_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    add_credential(monkeypatch, "main")
    Credential.objects.update(paused_for="the key was refused")
    with pytest.raises(CommandError, match="--replace"):
        add_credential(monkeypatch, "main", value="sk-other")
    add_credential(monkeypatch, "main", "--replace", value="sk-other")
    row = Credential.objects.get()
    assert (unseal(row.sealed), row.paused_for) == ("sk-other", "")


@pytest.mark.parametrize(
    ("named", "address", "may"),
    [
        ([], None, True),
        ([], "https://api.anthropic.com", True),
        ([], "https://API.anthropic.com:443/v1", True),
        ([], "https://evil.example", False),
        ([], "https://api.anthropic.com.evil.example", False),
        ([], "https://api.anthropic.com@evil.example", False),
        (["https://gateway.example"], "https://gateway.example/v1", True),
        (["https://gateway.example"], "https://gateway.example:8443", False),
        (["https://gateway.example"], "http://gateway.example", False),
        (["https://gateway.example"], None, False),
        (["http://127.0.0.1:9000"], "http://127.0.0.1:9000/x", True),
    ],
)
def test_a_credential_goes_only_where_it_may(named: list[str], address: str | None, may: bool) -> None:
    assert allowed(Credential(name="main", base_urls=named), address) is may


def test_a_credential_goes_to_the_provider_of_the_agents_runtime_where_no_address_is_named() -> None:
    own, openai = Credential(name="any"), Credential(name="main", base_urls=["https://api.openai.com"])
    assert allowed(own, None, "https://api.openai.com") and allowed(openai, None, "https://api.openai.com")
    assert not allowed(openai, None, "https://api.anthropic.com") and not allowed(openai, None)


def test_a_login_link_works_once() -> None:
    made = run("user", "add", "ada", "--superuser")
    token = made["link"].rstrip("/").rpartition("/")[2]
    older = run("login-link", "ada")["url"].rstrip("/").rpartition("/")[2]
    assert loginlinks.redeem(token + "x") is None
    user = loginlinks.redeem(token)
    assert user is not None and user.is_superuser and not user.has_usable_password()
    assert loginlinks.redeem(token) is None
    assert loginlinks.redeem(older) is None


def test_a_login_link_of_somebody_who_left_is_worthless() -> None:
    token = run("user", "add", "ada")["link"].rstrip("/").rpartition("/")[2]
    User.objects.update(is_active=False)
    assert loginlinks.redeem(token) is None
    with pytest.raises(CommandError, match="no active user"):
        run("login-link", "ada")


def test_a_person_gets_a_role_in_a_project(project: Project) -> None:
    assert run("user", "add", "ada", "--project", "web", "--role", "operator")["roles"] == {"web": "operator"}
    assert run("user", "add", "ada", "--project", "web", "--role", "viewer")["roles"] == {"web": "viewer"}
    assert Membership.objects.get().role == Role.VIEWER
    with pytest.raises(CommandError, match="--project"):
        run("user", "add", "ada", "--role", "viewer")


def test_hostile_text_cannot_steer_a_terminal() -> None:
    assert "\x1b" not in plain("\x1b]52;c;aGk=\x07 \x9b31m red\r")
    assert plain("tab\tand\nline \N{SNOWMAN}") == "tab\tand\nline \N{SNOWMAN}"
