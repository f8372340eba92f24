"""Changing limits and budgets: by name, with a history, and without ending anything."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.utils import timezone

from agents.models import Agent, Budget, Limit, Session, Spend
from agents.services import assigning, limiting, pool, subjects, using
from pipeline.actors import Actor
from pipeline.exceptions import BadInput, NotAllowed, NotFound
from pipeline.models import Act, Event, Host, Project, Story
from pipeline.roles import Role
from tests import factories
from tests.factories import ALICE


@pytest.fixture
def project(db: None) -> Project:
    made = factories.project()
    Limit.objects.all().delete()  # the factory's own
    return made


def test_a_lowered_limit_ends_nothing_and_a_raised_one_starts_what_waits(project: Project) -> None:
    for number in (1, 2, 3):
        factories.coder(project, number)
    limiting.set_limit("project", "web", 2, actor=ALICE)
    for _ in range(2):
        assert pool.start_story(factories.story(project), actor=ALICE).session is not None
    limiting.set_limit("project", "web", 1, actor=ALICE)
    assert Session.objects.live().count() == 2
    assert "2 of 1" in pool.start_story(factories.story(project), actor=ALICE).queued
    limiting.set_limit("project", "web", 3, actor=ALICE)
    assert assigning.auto_assign() == 1


def test_every_change_is_an_act_with_its_actor_the_old_and_the_new_value(project: Project) -> None:
    limiting.set_limit("server", "", 4, actor=ALICE, why="a bigger machine")
    limiting.set_limit("server", "", 6, actor=ALICE)
    limiting.set_limit("server", "", None, actor=Actor("bob"))
    limiting.set_budget("project", "web", "day", Decimal("2.5"), 1000, actor=ALICE)
    limiting.set_budget("project", "web", "day", None, None, actor=ALICE)
    assert list(Act.objects.values_list("actor", "verb", "subject", "why")) == [
        ("alice", "limit.set", "limit on the server", "none -> 4. a bigger machine"),
        ("alice", "limit.set", "limit on the server", "4 -> 6"),
        ("bob", "limit.clear", "limit on the server", "6 -> none"),
        ("alice", "budget.set", "budget a day for project web", "none -> $2.5 and 1000 tokens"),
        ("alice", "budget.clear", "budget a day for project web", "$2.5 and 1000 tokens -> none"),
    ]
    assert Event.objects.filter(project=project, kind="limits").count() == 5
    assert not Limit.objects.filter(scope="server").exists() and not Budget.objects.exists()


def test_names_are_kept_as_ids_and_shown_as_names(project: Project) -> None:
    ada, agent, story = factories.person("ada"), factories.coder(project), factories.story(project)
    host = Host.objects.create(name="box")
    for scope, name in (
        ("user", "ada"), ("agent", "web/coder-1"), ("host", "box"), ("review", "web"), ("role", "coder"), ("model", "sonnet"),
    ):  # fmt: skip
        limiting.set_limit(scope, name, 2, actor=ALICE)
    limiting.set_budget("story", "web/1", "total", Decimal(1), None, actor=ALICE)
    assert dict(Limit.objects.values_list("scope", "subject")) == {
        "user": str(ada.pk), "agent": str(agent.pk), "host": str(host.pk), "review": str(project.pk), "role": "coder", "model": "sonnet",
    }  # fmt: skip
    assert Budget.objects.get().subject == str(story.pk)
    Project.objects.filter(pk=project.pk).update(name="shop")
    shown = {(use.scope, use.name) for use in using.limits()}
    assert {("agent", "shop/coder-1"), ("review", "shop"), ("user", "ada"), ("host", "box")} <= shown
    assert using.budgets()[0].name == "shop/1"


@pytest.mark.parametrize(
    ("scope", "name", "most", "said"),
    [
        ("planet", "", 1, "cannot have a limit; there are server, host"),
        ("story", "web/1", 1, "cannot have a limit"),
        ("server", "box", 1, "The server has one limit"),
        ("role", "boss", 1, "no role of agents; the roles are coder"),
        ("model", "two words", 1, "A model is one word"),
        ("project", "web", -1, "a number from 0"),
        ("project", "web", 10**9, "a number from 0"),
    ],
)
def test_what_is_wrong_with_a_limit_is_named(
    project: Project, scope: str, name: str, most: int, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        limiting.set_limit(scope, name, most, actor=ALICE)
    assert not Limit.objects.exists() and not Act.objects.exists()


@pytest.mark.parametrize("scope", ["host", "project", "user", "agent", "review"])
def test_what_does_not_exist_gets_no_limit(project: Project, scope: str) -> None:
    with pytest.raises(NotFound, match="no "):
        limiting.set_limit(scope, "nowhere", 1, actor=ALICE)
    with pytest.raises(NotFound, match="nothing to take away"):
        limiting.set_limit(scope, "", None, actor=ALICE)


def test_an_agent_name_that_fits_two_projects_must_be_told_apart(project: Project) -> None:
    factories.coder(project)
    factories.coder(factories.project("api"))
    with pytest.raises(BadInput, match="fits several projects: api/coder-1, web/coder-1"):
        subjects.find("agent", "coder-1")
    assert subjects.find("agent", "api/coder-1").label == "agent api/coder-1"


@pytest.mark.parametrize("usd", ["-1", "NaN", "Infinity", "1e12"])
def test_an_amount_that_is_none_is_refused(project: Project, usd: str) -> None:
    with pytest.raises(BadInput, match="US dollars"):
        limiting.set_budget("project", "web", "day", Decimal(usd), None, actor=ALICE)
    with pytest.raises(BadInput, match="no period"):
        limiting.set_budget("project", "web", "year", Decimal(1), None, actor=ALICE)
    with pytest.raises(BadInput, match="cannot have a budget"):
        limiting.set_budget("agent", "web/coder-1", "day", Decimal(1), None, actor=ALICE)


def test_operators_change_their_projects_limits_and_admins_of_the_server_all(project: Project) -> None:
    factories.coder(project)
    operator = Actor.of(factories.person("op", project, Role.OPERATOR))
    developer = Actor.of(factories.person("dev", project, Role.DEVELOPER))
    root = Actor.of(factories.person("root", is_superuser=True))
    limiting.set_limit("agent", "web/coder-1", 0, actor=operator)
    limiting.set_budget("project", "web", "day", Decimal(1), None, actor=operator)
    with pytest.raises(NotAllowed, match="needs the role operator"):
        limiting.set_limit("project", "web", 2, actor=developer)
    for scope, name in (("server", ""), ("project", ""), ("role", "coder"), ("user", "dev")):
        with pytest.raises(NotAllowed, match="only an admin of the whole server"):
            limiting.set_limit(scope, name, 2, actor=operator)
        limiting.set_limit(scope, name, 2, actor=root)


def test_the_use_of_each_limit_is_counted_from_what_lives(project: Project) -> None:
    factories.coder(project, model="sonnet")
    factories.coder(project, 2)
    ada = Actor.of(factories.person("ada", project, Role.DEVELOPER))
    pool.start_story(factories.story(project), actor=ada)
    pool.start_story(factories.story(project), actor=ALICE)
    for scope, name in (
        ("project", ""),
        ("user", ""),
        ("role", "coder"),
        ("model", "sonnet"),
        ("agent", "web/coder-1"),
    ):
        limiting.set_limit(scope, name, 2, actor=ALICE)
    used = {(use.scope, use.name): (use.used, use.note) for use in using.limits()}
    assert used == {
        ("server", ""): (2, "HUSKIES_SERVER_LIMIT"),
        ("project", ""): (2, "the busiest: web"),
        ("user", ""): (1, "the busiest: ada"),
        ("role", "coder"): (2, ""),
        ("model", "sonnet"): (1, ""),
        ("agent", "web/coder-1"): (1, ""),
    }
    # A project's page says nothing of who works elsewhere.
    assert "user" not in {use.scope for use in using.limits(project)}


def test_what_was_spent_is_shown_beside_each_budget(project: Project) -> None:
    factories.coder(project)
    story = factories.story(project)
    session = pool.start_story(story, actor=ALICE).session
    assert session is not None
    now = timezone.now()
    common = {"project": project, "agent": "coder-1", "model": "sonnet"}
    Spend.objects.create(day=now.date(), usd="0.75", tokens=30, **common)
    Spend.objects.create(day=now.date().replace(year=2020), usd="9", tokens=70, **common)
    Spend.objects.create(day=now.date(), usd="0.25", tokens=5, session=session, story=story, **common)
    limiting.set_budget("project", "web", "day", Decimal(2), 100, actor=ALICE)
    limiting.set_budget("server", "", "total", Decimal(9), None, actor=ALICE)
    limiting.set_budget("project", "", "day", Decimal(9), None, actor=ALICE)
    limiting.set_budget("story", "web/1", "total", Decimal("0.2"), None, actor=ALICE)
    found = {(row.scope, row.name): row for row in using.budgets()}
    assert (found["project", "web"].spent_usd, found["project", "web"].spent_tokens) == (Decimal(1), 35)
    assert found["server", ""].spent_usd == Decimal(10) and found["server", ""].full
    assert found["project", ""].spent_usd == 0  # web has a budget of its own
    assert found["story", "web/1"].spent_usd == Decimal("0.25") and found["story", "web/1"].full
    assert {(row.scope, row.name) for row in using.budgets(project)} == set(found)
    assert Agent.objects.count() == 1 and Story.objects.count() == 1
