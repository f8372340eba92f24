"""Budgets: booked while agents run, projected before a start, said with what a person needs to know."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from agents.models import Budget, LedgerRow, Spend
from agents.services import allowances, pool, spending, watching
from agents.services.assigning import auto_assign
from pipeline.models import Story
from tests import factories
from tests.agents.working import ended, in_coding, session, spend
from tests.factories import ALICE

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 25, 18, tzinfo=UTC)


def budget(
    scope: str, usd: str | None, subject: object = "", period: str = "day", tokens: int | None = None
) -> Budget:
    return Budget.objects.create(
        scope=scope, subject=str(subject), period=period, usd=Decimal(usd) if usd else None, tokens=tokens
    )


def test_without_a_budget_nothing_is_refused() -> None:
    project = factories.project()
    assert (
        spending.Budgets.look(timezone.now()).refusal(
            factories.story(project), factories.coder(project), None
        )
        == ""
    )


def test_the_day_counts_what_each_request_cost_and_two_rows_add_up() -> None:
    project, someone = factories.project(), factories.person("bob")
    running = session(factories.story(project), factories.coder(project), started_by=someone)
    late = datetime(2026, 11, 24, 23, 59, 59, tzinfo=UTC)
    for seq, at in enumerate((late, late, late + timedelta(seconds=1)), 1):
        spend(running, "0.25", 10, at=at, seq=seq)
    Spend.objects.create(day=late.date(), project=project, user=someone, agent="coder-1", model="m", usd=1)
    days = {row.day.day: row.usd for row in Spend.objects.order_by("-id")}
    assert days == {24: Decimal("0.5"), 25: Decimal("0.25")} and Spend.objects.count() == 3
    budgets = spending.Budgets.look(late)
    assert budgets.used("day", "user", someone.pk) == spending.Used(Decimal("1.5"), 20)
    assert budgets.used("total", "project", project.pk) == spending.Used(Decimal("1.75"), 30)
    assert budgets.used("day", "story", running.story_id).usd == Decimal("0.5")
    assert budgets.used("total", "user", 0) == spending.Used()


def test_a_start_is_refused_when_the_mean_session_no_longer_fits() -> None:
    project = factories.project()
    coder, story = factories.coder(project), factories.story(project)
    for cost in ("1", "3"):
        ended(factories.story(project), coder, cost)
    budget("project", "5", project.pk)
    Spend.objects.create(day=NOW.date(), project=project, agent="coder-1", model="m", usd=Decimal("2.9"))
    assert spending.Budgets.look(NOW).refusal(story, coder, None) == ""
    Spend.objects.create(day=NOW.date(), project=project, agent="coder-1", model="m", usd=Decimal("0.2"))
    assert spending.Budgets.look(NOW).refusal(story, coder, None) == (
        "the budget of project web: $3.10 of $5.00 spent today, a session of coder-1 costs about $2.00; "
        "it renews at 00:00 UTC (in 6 h), and an operator of its project can raise it"
    )
    assert spending.Budgets.look(NOW + timedelta(days=1)).refusal(story, coder, None) == "", "a new day"


def test_what_runs_is_counted_with_what_it_is_still_likely_to_use() -> None:
    project = factories.project()
    coders = [factories.coder(project, number) for number in (1, 2)]
    for coder in coders:
        ended(factories.story(project), coder, "2")
    budget("server", "3")
    running = session(factories.story(project), coders[0])
    said = spending.Budgets.look(timezone.now()).refusal(factories.story(project), coders[1], None)
    assert (
        "$0.00 of $3.00 spent today, a session of coder-2 costs about $2.00 and what runs is likely to use $2.00 more"
        in said
    )
    spend(running, "1.5")
    assert "likely to use $0.50 more" in spending.Budgets.look(timezone.now()).refusal(
        factories.story(project), coders[1], None
    )


@pytest.mark.parametrize("scope", ["server", "project", "user", "story"])
@pytest.mark.parametrize("each", [True, False])
def test_a_spent_budget_of_every_level_keeps_a_story_waiting_with_the_true_reason(
    scope: str, each: bool
) -> None:
    project, bob = factories.project(), factories.person("bob")
    factories.coder(project)
    story = factories.story(project)
    Story.objects.filter(pk=story.pk).update(owner=bob)
    subject = {"server": "", "project": project.pk, "user": bob.pk, "story": story.pk}[scope]
    row = budget(scope, None, "" if each else subject, period="total", tokens=100)
    spend(
        session(story, factories.coder(project, 2), state="ended", outcome="done", started_by=bob), "1", 100
    )
    started = pool.start_story(Story.objects.get(pk=story.pk), actor=ALICE)
    who = {"server": "the server", "project": "project web", "user": "bob", "story": "story web/1"}[scope]
    assert started.session is None
    assert f"the budget of {who}: 100 of 100 tokens spent; it does not renew" in started.queued
    Budget.objects.filter(pk=row.pk).update(tokens=10_000)
    assert auto_assign() == 1, "raising it frees the story"


def test_a_program_gets_what_is_left_of_all_budgets_and_its_own() -> None:
    project = factories.project()
    running = session(factories.story(project), factories.coder(project))
    assert spending.left(running, timezone.now()) is None
    budget("server", "9")
    budget("project", "2", project.pk, period="total")
    spend(running, "1.25")
    left = spending.left(running, timezone.now())
    assert left == Decimal("0.75")
    assert allowances.for_program({"max_budget_usd": "0.50"}, left) == {
        "max_budget_usd": "0.600",
        "budget_left_usd": "0.75",
    }
    assert allowances.for_program({"max_turns": 10}, None) == {"max_turns": 12}
    spend(running, "5", seq=2)
    assert spending.left(running, timezone.now()) == Decimal("0.01"), "nothing would mean no limit"


def test_everything_that_a_spent_budget_pays_for_is_stopped_and_nothing_else() -> None:
    project, other = factories.project(), factories.project("api")
    mine = session(in_coding(factories.story(project)), factories.coder(project))
    theirs = session(in_coding(factories.story(other)), factories.coder(other))
    budget("project", "1", project.pk)
    spend(mine, "1")
    watching.sweep()
    mine.refresh_from_db()
    theirs.refresh_from_db()
    assert (mine.stop_cause, theirs.stop_cause) == ("budget", "")
    assert mine.reason.startswith("Nothing is left of the budget of project web: $1.00 of $1.00 spent today")
    assert LedgerRow.objects.count() == 1
