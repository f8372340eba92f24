"""The pages of agents and limits: what they tell, what their buttons do, and that every act has an actor in the history."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from agents import agent_views
from agents.models import Agent, Credential, Limit, RuntimeCheck, Session
from agents.runtimes import RUNTIMES
from pipeline import conf
from pipeline.models import Act, Host, Project, Story
from tests import factories
from tests.pages.conftest import Town

HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m"


def of(town: Town, who: str) -> Client:
    client = Client()
    client.force_login(town.people[who])
    return client


def page(town: Town, who: str = "operator", name: str = "agents") -> str:
    return of(town, who).get(reverse(name, args=["web"])).content.decode()


def limits() -> dict[str, int]:
    """Those that a test made: the factory's own is the server's."""
    return {f"{row.scope} {row.subject}".strip(): row.most for row in Limit.objects.exclude(scope="server")}


def done(client: Client, url: str, fields: dict[str, object]) -> str:
    """What the page says after the post."""
    return client.post(url, fields, follow=True).content.decode()


def do(town: Town, verb: str, who: str = "operator", agent: str = "coder-1", **fields: str) -> int:
    return int(of(town, who).post(reverse("agent-do", args=["web", agent, verb]), fields).status_code)


def test_an_agent_is_shown_with_what_it_works_on_and_since_when(town: Town) -> None:
    factories.coder(town.web, 2)
    shown = page(town)
    assert 'data-agent="web/coder-1" data-state="working"' in shown
    assert 'data-agent="web/coder-2" data-state="free"' in shown
    assert "#1 Add a button" in shown and "for less than a minute" in shown
    Session.objects.filter(pk=town.session.pk).update(throttled=True)
    assert "The provider warned that a limit is near" in page(town)


def test_a_pause_is_shown_with_who_and_why_and_ended_by_its_button(town: Town) -> None:
    agent = factories.coder(town.web, 2)
    assert do(town, "pause", agent="coder-2", why="the model is being replaced") == 302
    assert "Paused by operator: the model is being replaced" in page(town)
    assert do(town, "pause", agent="coder-2") == 409
    assert do(town, "resume", agent="coder-2") == 302
    agent.refresh_from_db()
    assert (agent.paused_for, agent.paused_by) == ("", "")
    acts = list(Act.objects.values_list("actor", "verb", "subject", "why"))
    assert acts[0] == ("operator", "agent.pause", "agent web/coder-2", "the model is being replaced")
    assert acts[1][:3] == ("operator", "agent.resume", "agent web/coder-2")
    assert "agent.pause" in page(town)


def test_the_stop_button_stops_and_holds_the_story(town: Town) -> None:
    Story.objects.filter(pk=town.story.pk).update(held_for="")
    assert do(town, "stop", who="developer") == 302
    town.story.refresh_from_db()
    town.session.refresh_from_db()
    assert town.story.held_for == "stopped by developer"
    assert town.session.stop_requested_by == "developer"
    assert "Stops: asked by developer" in page(town)
    assert do(town, "stop", agent=factories.coder(town.web, 2).name) == 409


def test_a_story_is_given_to_an_agent_by_its_button(town: Town) -> None:
    factories.coder(town.web, 2)
    other = factories.story(town.web, "Another")
    assert f'<option value="{other.number}">' in page(town)
    assert do(town, "start", who="developer", agent="coder-2", story=str(other.number)) == 302
    other.refresh_from_db()
    assert other.stage == "coding"
    foreign = factories.story(Project.objects.get(name="other"))
    for wrong in ("99", "", "other/1", f"web/{other.number}", "1\n"):
        assert do(town, "start", agent="coder-2", story=wrong) == 409, wrong
    foreign.refresh_from_db()
    assert foreign.stage == "backlog"
    assert do(town, "start", agent="coder-2") == 409
    assert do(town, "frobnicate", agent="coder-2") == 409


def test_a_long_backlog_hides_no_other_story_that_an_agent_could_take(town: Town) -> None:
    offered = agent_views.OFFERED_AT_MOST
    stories = [Story(project=town.web, number=number, title="x") for number in range(100, 102 + offered)]
    Story.objects.bulk_create(stories)
    Story.objects.filter(number=101 + offered).update(stage="coding", held_for="x")
    Story.objects.filter(number=100).update(deleting="someone")
    other = Project.objects.get(name="other")
    factories.coder(other)
    factories.coder(town.web, 2)
    Story.objects.create(project=other, number=300, title="of the other")
    shown = of(town, "root").get(reverse("all-agents")).content.decode()
    assert f'<option value="{101 + offered}">' in shown and '<option value="300">' in shown
    assert '<option value="100">' not in shown
    assert shown.count("(backlog)") <= offered + 1


def test_what_waits_is_counted_also_where_not_all_is_shown(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_views, "WAITING_AT_MOST", 1)
    for _ in range(3):
        row = factories.story(town.web)
        Story.objects.filter(pk=row.pk).update(stage="coding", waiting_for="an agent")
    shown = page(town)
    assert "3, the first 1 of them" in shown and shown.count("an agent") == 1


def test_a_viewer_sees_agents_and_is_offered_nothing(town: Town) -> None:
    shown = page(town, "viewer")
    assert 'data-agent="web/coder-1"' in shown and "/do/" not in shown
    assert do(town, "pause", who="developer") == 403
    assert do(town, "stop", who="viewer") == 403
    assert do(town, "stop", who="viewer", agent=factories.coder(town.web, 2).name) == 403
    assert do(town, "stop", who="stranger") == 404


def test_all_agents_are_those_of_the_projects_that_one_may_see(town: Town) -> None:
    factories.coder(town.web, 2)
    shown = of(town, "root").get(reverse("all-agents")).content.decode()
    assert 'aria-label="Agents of web"' in shown and 'aria-label="Agents of other"' in shown
    strangers = of(town, "stranger").get(reverse("all-agents")).content.decode()
    assert "coder-1" not in strangers and "Agents of web" not in strangers


def test_twenty_more_agents_cost_no_more_queries(town: Town) -> None:
    client, url = of(town, "operator"), reverse("agents", args=["web"])
    client.get(url)
    with CaptureQueriesContext(connection) as few:
        client.get(url)
    for number in range(2, 22):
        factories.coder(town.web, number)
    with CaptureQueriesContext(connection) as many:
        client.get(url)
    assert len(many) == len(few)


def test_hostile_names_and_reasons_are_text(town: Town) -> None:
    Story.objects.filter(pk=town.story.pk).update(stage="coding", waiting_for=HOSTILE, title=HOSTILE)
    Agent.objects.update(paused_for=HOSTILE, paused_by=HOSTILE, model=HOSTILE)
    Act.objects.create(actor=HOSTILE, verb="x", subject="agent web/coder-1", why=HOSTILE)
    for name in ("agents", "project-limits"):
        shown = page(town, name=name)
        assert "<script>alert" not in shown and "\u202e" not in shown and "\x1b" not in shown


def test_a_limit_is_raised_and_cleared_from_its_page(town: Town) -> None:
    client, url = of(town, "operator"), reverse("project-limit-set", args=["web"])
    assert client.post(url, {"scope": "project", "most": "3"}).status_code == 302
    assert limits() == {f"project {town.web.pk}": 3}
    shown = page(town, name="project-limits")
    assert "project web" in shown and "1 of 3" in shown
    assert client.post(url, {"scope": "project", "subject": "web", "clear": "1"}).status_code == 302
    assert limits() == {}
    assert client.post(url, {"scope": "project", "most": ""}).status_code == 409
    assert [act.verb for act in Act.objects.order_by("id")] == ["limit.set", "limit.clear"]


@pytest.mark.parametrize("scope", ["server", "user", "host", "role"])
def test_a_projects_operator_changes_nothing_of_the_whole_server(town: Town, scope: str) -> None:
    client = of(town, "operator")
    project_url = reverse("project-limit-set", args=["web"])
    assert client.post(project_url, {"scope": scope, "subject": "", "most": "3"}).status_code == 409
    for most in ("3", "many"):  # whose form is wrong is not told so: the rights come first
        assert client.post(reverse("limit-set"), {"scope": scope, "most": most}).status_code == 403
    assert limits() == {} and Limit.objects.get().most == 100


def test_a_projects_page_names_only_its_own_things(town: Town) -> None:
    factories.coder(factories.project("third"), 7)
    client = of(town, "operator")
    url = reverse("project-limit-set", args=["web"])
    for foreign in ("other", "coder-1"):
        assert client.post(url, {"scope": "project", "subject": foreign, "most": "3"}).status_code == 409
    assert limits() == {}
    assert client.post(url, {"scope": "agent", "subject": "third/coder-7", "most": "0"}).status_code == 409
    assert client.post(url, {"scope": "agent", "subject": "coder-1", "most": "0"}).status_code == 302


def test_a_change_of_a_limit_says_what_was_changed(town: Town) -> None:
    client, url = of(town, "root"), reverse("limit-set")
    assert "The limit of agent web/coder-1 is set." in done(
        client, url, {"scope": "agent", "subject": "web/coder-1", "most": "2"}
    )
    gone = {"scope": "agent", "subject": "web/coder-1", "clear": "1"}
    assert "The limit of agent web/coder-1 is taken away." in done(client, url, gone)
    Limit.objects.filter(scope="server").delete()
    shown = client.get(reverse("limits")).content.decode()
    assert "HUSKIES_SERVER_LIMIT" in shown and "Take away" not in shown


def test_a_budget_is_set_from_its_page_and_shows_what_was_spent(town: Town) -> None:
    client, url = of(town, "operator"), reverse("project-limit-set", args=["web"])
    fields = {"scope": "project", "period": "day", "usd": "2.50", "tokens": ""}
    assert client.post(url, fields).status_code == 302
    assert "$0.00 of $2.50" in page(town, name="project-limits")
    assert client.post(url, {**fields, "usd": "-1"}).status_code == 409
    assert of(town, "developer").post(url, fields).status_code == 403


def test_a_story_page_offers_assigning_and_deleting_by_role(town: Town) -> None:
    url = reverse("story", args=["web", 1])
    shown = of(town, "operator").get(url).content.decode()
    assert reverse("story-assign", args=["web", 1]) in shown
    assert reverse("story-delete", args=["web", 1]) in shown
    confirm = of(town, "operator").get(reverse("story-delete", args=["web", 1])).content.decode()
    assert "It goes for ever" in confirm and "1 session" in confirm
    assert of(town, "developer").get(reverse("story-delete", args=["web", 1])).status_code == 403


def test_a_story_that_is_being_deleted_is_offered_nothing(town: Town) -> None:
    Story.objects.filter(pk=town.story.pk).update(deleting="olga", held_for="being deleted by olga")
    client = of(town, "operator")
    shown = client.get(reverse("story", args=["web", 1])).content.decode()
    assert "It is being deleted by olga" in shown and "Start it to go on" not in shown
    assert "/do/" not in shown and reverse("story-start", args=["web", 1]) not in shown
    assert (
        reverse("story-start", args=["web", 1])
        not in client.get(reverse("board", args=["web"])).content.decode()
    )


def test_a_credential_is_replaced_from_its_page_when_that_is_said(town: Town) -> None:
    client, url = of(town, "root"), reverse("credentials")
    fields = {"name": "main", "kind": "api_key", "value": "one"}
    assert client.post(url, fields).status_code == 302
    sealed = Credential.objects.get().sealed
    refusal = client.post(url, {**fields, "value": "two"})
    assert refusal.status_code == 409 and "tick the box" in refusal.content.decode()
    assert Credential.objects.get().sealed == sealed
    assert client.post(url, {**fields, "value": "two", "replace": "on"}).status_code == 302
    assert Credential.objects.get().sealed != sealed


def test_the_doctors_page_says_when_nobody_looks(town: Town) -> None:
    shown = of(town, "root").get(reverse("doctor")).content.decode()
    assert "No supervisor runs on this machine" in shown and "No two rounds are over yet" in shown
    Host.objects.create(name=conf.host(), seen_at=timezone.now())
    assert "No supervisor runs" not in of(town, "root").get(reverse("doctor")).content.decode()


def test_hostile_words_of_a_refusal_are_visible_text(town: Town) -> None:
    fields = {"scope": HOSTILE, "most": "1"}
    answer = of(town, "root").post(reverse("limit-set"), fields).content.decode()
    assert "select a valid choice" in answer.lower()
    assert "<script>alert" not in answer and "\u202e" not in answer and "\x1b" not in answer


def test_an_admin_goes_on_with_a_paused_key_and_a_mended_program(town: Town) -> None:
    Credential.objects.create(name="main", paused_for=HOSTILE)
    pause = RuntimeCheck.objects.create(host="box", runtime="claude-code", state="unfit", reason=HOSTILE)
    client = of(town, "root")
    shown = client.get(reverse("credentials")).content.decode()
    assert "Paused: &lt;script&gt;" in shown and "<script>alert" not in shown
    assert client.post(reverse("pause-lift"), {"credential": "main"}).status_code == 302
    assert client.post(reverse("pause-lift"), {"runtime": str(pause.pk)}).status_code == 302
    assert client.post(reverse("pause-lift"), {"credential": "main"}).status_code == 409
    assert client.post(reverse("pause-lift"), {"runtime": "9" * 40}).status_code == 404
    assert (
        RuntimeCheck.objects.get().state == "unknown"
        and not Credential.objects.exclude(paused_for="").exists()
    )


def test_the_admins_list_pauses_and_stops_agents_by_the_same_verbs(town: Town) -> None:
    client, agent = of(town, "root"), town.session.agent
    url = reverse("admin:agents_agent_changelist")
    fields = {"_selected_action": [str(agent.pk)]}
    client.post(url, {**fields, "action": "pause_selected"})
    client.post(url, {**fields, "action": "stop_selected"})
    agent.refresh_from_db()
    town.session.refresh_from_db()
    assert (agent.paused_by, town.session.stop_requested_by) == ("root", "root")
    answer = client.post(url, {**fields, "action": "pause_selected"}, follow=True)
    assert "is paused already" in answer.content.decode()
    assert "Resumed: web/coder-1." in done(client, url, {**fields, "action": "resume_selected"})
    assert "Paused: web/coder-1." in done(client, url, {**fields, "action": "pause_selected"})
    shown = client.get(reverse("admin:agents_agent_change", args=[agent.pk])).content.decode()
    assert reverse("agent-do", args=["web", "coder-1", "resume"]) in shown


def test_every_runtime_is_listed_with_what_this_machine_has_of_it(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUSKIES_CODEX", "/nowhere/codex")
    shown = of(town, "viewer").get(reverse("next-steps")).content.decode()
    for runtime in RUNTIMES.values():
        assert f"<strong>{runtime.name}</strong>" in shown
    assert "or name the program in HUSKIES_CODEX" in shown
