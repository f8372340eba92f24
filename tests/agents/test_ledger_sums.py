"""What was spent, summed by anything: right, the same everywhere, in a constant number of queries; as a page, a file and a command."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Sum
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from agents.models import LedgerRow, Session, Spend
from agents.services import ledger
from pipeline.exceptions import BadInput
from pipeline.models import Project
from pipeline.roles import Role
from tests import factories
from tests.agents.working import session, spend

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 25, 18, tzinfo=UTC)


@pytest.fixture
def web() -> Project:
    """Two agents, two people and three days of one project, and one session of another."""
    project, other = factories.project(), factories.project("api")
    bob, eve = factories.person("bob"), factories.person("eve")
    first = session(factories.story(project, "=SUM(A1)"), factories.coder(project), started_by=bob)
    second = session(factories.story(project), factories.coder(project, 2), started_by=eve)
    third = session(factories.story(other), factories.coder(other), started_by=bob)
    for seq, (of, cost, days) in enumerate(
        [(first, "1", 0), (first, "2", 3), (second, "4", 20), (third, "8", 0)], 1
    ):
        spend(of, cost, 10, at=NOW - timedelta(days=days), seq=seq)
    return project


def usd(by: str, **more: Any) -> dict[str, int]:
    return {line.name: int(line.usd) for line in ledger.lines(ledger.Asked(by, **more))}


def test_the_sums_by_everything(web: Project) -> None:
    assert usd("project") == {"api": 8, "web": 7}
    assert usd("story") == {"api/1 Add a button": 8, "web/2 Add a button": 4, "web/1 =SUM(A1)": 3}
    assert usd("agent") == {"api/coder-1": 8, "web/coder-2": 4, "web/coder-1": 3}
    assert usd("person") == {"bob": 11, "eve": 4}
    assert usd("model") == {"m": 15}
    assert usd("day") == {"2026-11-25": 9, "2026-11-22": 2, "2026-11-05": 4}
    assert sorted(usd("session").values()) == [3, 4, 8]
    for by in ledger.BY:
        assert sum(usd(by).values()) == ledger.total(ledger.Asked(by)).usd == 15
        assert sum(usd(by, project=web).values()) == 7
    assert (
        LedgerRow.objects.aggregate(Sum("cost_usd"))
        == {"cost_usd__sum": 15}
        == Session.objects.aggregate(cost_usd__sum=Sum("cost_usd"))
    )


def test_of_some_days_and_looked_into(web: Project) -> None:
    assert usd("project", since=ledger.since("week", NOW)) == {"api": 8, "web": 3}
    assert usd("project", since=ledger.since("today", NOW)) == {"api": 8, "web": 1}
    assert usd("story", until=date(2026, 11, 22)) == {"web/2 Add a button": 4, "web/1 =SUM(A1)": 2}
    found = {
        period: int(line.usd)
        for period, line in ledger.periods(ledger.Asked("story", project=web), NOW).items()
    }
    assert found == {"today": 1, "week": 3, "month": 7, "all": 7}
    for by in ledger.BY:
        for line in ledger.lines(ledger.Asked(by)):
            inside = ledger.lines(ledger.Asked("session", only=line.only))
            assert sum(one.usd for one in inside) == line.usd, (by, line.name)


def test_a_deleted_story_keeps_its_place_in_the_sums(web: Project) -> None:
    web.stories.get(number=1).delete()
    assert usd("story", project=web) == {"web/2 Add a button": 4, "of deleted stories": 3}
    assert usd("agent", project=web) == {"web/coder-2": 4, "web/coder-1": 3}


def test_as_many_queries_for_many_rows_as_for_few(web: Project) -> None:
    def queries() -> dict[str, int]:
        found = {}
        for by in ledger.BY:
            with CaptureQueriesContext(
                connection,
            ) as made:
                ledger.lines(ledger.Asked(by))
            found[by] = len(made)
        return found

    few = queries()
    assert max(few.values()) <= 2
    for number in range(3, 12):
        spend(
            session(
                factories.story(web), factories.coder(web, number), started_by=factories.person(f"p{number}")
            ),
            "1",
            at=NOW,
        )
    assert queries() == few


@pytest.mark.parametrize("asked", ["days", "project", "story", "session", "person"])
def test_no_question_reads_all_rows(web: Project, asked: str) -> None:
    """An index leads to the rows of some days, a project, a story, a session and a person."""
    whole: dict[str, ledger.Asked] = {
        "days": ledger.Asked("agent", since=date(2026, 11, 24)),
        "project": ledger.Asked("agent", since=date(2026, 11, 24), project=web),
        "story": ledger.Asked("session", only={"story": "1"}),
        "session": ledger.Asked("model", only={"session": "1"}),
        "person": ledger.Asked("day", only={"person": "1"}),
    }
    if connection.vendor == "postgresql":
        # So few rows are read as they lie; what is asked is whether an index could be used.
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
    plan = str(whole[asked].rows().values("agent").annotate(Sum("usd")).explain())
    assert "SEARCH agents_spend USING" in plan or "Index" in plan, plan
    assert "SCAN agents_spend" not in plan and "Seq Scan" not in plan, plan


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "\n@a"])
def test_no_cell_of_a_file_is_a_formula(name: str) -> None:
    [_, [first, *_]] = csv.reader(io.StringIO(ledger.as_csv("story", [ledger.Line(name, {})])))
    assert first.startswith("'") and first.endswith(name.strip()[1:])


def test_the_file_has_every_line_with_its_figures(web: Project) -> None:
    rows = list(csv.DictReader(io.StringIO(ledger.as_csv("agent", ledger.lines(ledger.Asked("agent"))))))
    assert [(row["agent"], row["usd"], row["tokens"], row["input_tokens"]) for row in rows] == [
        ("api/coder-1", "8.000000", "10", "10"),
        ("web/coder-2", "4.000000", "10", "10"),
        ("web/coder-1", "3.000000", "20", "20"),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("story", "x"),
        ("day", "today"),
        ("agent", "z/a"),
        ("nothing", "1"),
        ("session", "9" * 30),
        ("model", "\x00"),
    ],
)
def test_a_filter_that_is_none_is_refused_with_a_sentence(name: str, value: str) -> None:
    with pytest.raises(BadInput):
        ledger.only(name, value)


# -- the page --------------------------------------------------------------------------------------------------------


def client(user: User) -> Client:
    found = Client()
    found.force_login(user)
    return found


def test_the_page_shows_the_sums_and_leads_into_them(web: Project) -> None:
    operator = client(factories.person("op", web, Role.OPERATOR))
    text = operator.get("/p/web/spending/?by=story&period=all").content.decode()
    assert "web/1 =SUM(A1)" in text and "$7.00" in text and "api/1" not in text
    first = Session.objects.order_by("pk")[0]
    assert f"?by=session&amp;period=all&amp;story={first.story_id}" in text
    inside = operator.get(f"/p/web/spending/?by=session&period=all&story={first.story_id}").content.decode()
    assert f"/sessions/{first.pk}/" in inside and "$3.00" in inside and "coder-2" not in inside
    other = Session.objects.order_by("pk")[2]
    hidden = operator.get(f"/p/web/spending/?by=session&period=all&story={other.story_id}").content.decode()
    assert "Nothing was spent" in hidden, "a filter opens no other project"
    file = operator.get("/p/web/spending/?by=story&period=all&csv=1")
    assert "attachment" in file["Content-Disposition"] and file.content.decode().count("\n") == 3
    assert operator.get("/p/web/spending/?by=nothing").status_code == 409
    assert operator.get("/p/web/spending/?period=ever").status_code == 409
    assert operator.get("/spending/").status_code == 403


def test_the_whole_servers_is_its_admins(web: Project) -> None:
    text = (
        client(factories.person("root", is_superuser=True))
        .get("/spending/?period=all&by=person")
        .content.decode()
    )
    assert "$15.00" in text and "bob" in text and "$11.00" in text


def test_what_was_counted_without_a_price_is_said_on_every_page(web: Project) -> None:
    Spend.objects.create(
        day=timezone.now().date(), project=web, agent="a", model="mystery", usd=5, unpriced_usd=5
    )
    root = client(factories.person("root", is_superuser=True))
    for by in ("day", "model", "agent"):
        text = root.get(f"/spending/?by={by}").content.decode()
        assert (
            "$5.00 without a known price" in text and "price unknown, counted as the dearest: $30 in" in text
        )
    prices = root.get("/prices/").content.decode()
    assert (
        "gpt-5.5" in prices
        and "above 272 k tokens" in prices
        and "any other model" in prices
        and "platform.claude.com" in prices
    )


def test_a_sessions_page_compares_our_figure_with_the_programs(web: Project) -> None:
    viewer, row = client(factories.person("v", web, Role.VIEWER)), Session.objects.order_by("pk")[0]
    Session.objects.filter(pk=row.pk).update(reported_cost_usd=Decimal("3.5"), reconciled_cost_usd=Decimal(3))
    text = viewer.get(f"/sessions/{row.pk}/").content.decode()
    assert "the program says otherwise" in text and "difference: $0.500000" in text
    Session.objects.filter(pk=row.pk).update(reported_cost_usd=Decimal("3.01"))
    LedgerRow.objects.filter(session=row).update(price_unknown=True)
    text = viewer.get(f"/sessions/{row.pk}/").content.decode()
    assert (
        "the program says otherwise" not in text
        and "difference: $0.010000" in text
        and "price unknown, counted as" in text
    )


# -- the command -----------------------------------------------------------------------------------------------------


def told(*words: str) -> str:
    out = io.StringIO()
    call_command("spend", *words, stdout=out)
    return out.getvalue()


def test_the_command_says_the_same(web: Project) -> None:
    found = json.loads(told("--by", "story", "--json"))
    first = found["lines"][0]
    assert (first["name"], first["usd"]) == ("api/1 Add a button", "8.000000")
    assert found["total"]["usd"] == "15.000000" and found["by"] == "story"
    assert (
        json.loads(told("--project", "web", "--since", "2026-11-25", "--json"))["total"]["usd"] == "1.000000"
    )
    assert json.loads(told("--until", "2026-11-22", "--json"))["total"]["usd"] == "6.000000"
    lines = told("--by", "person").splitlines()
    assert (
        lines[0].split()[:2] == ["PERSON", "USD"]
        and lines[1].split()[:2] == ["bob", "11.000000"]
        and "in all" in lines[-1]
    )
    assert told("--since", "2030-01-01") == "Nothing was spent.\n"
    with pytest.raises(CommandError, match="no day; write it as 2026-11-25"):
        told("--since", "yesterday")
    with pytest.raises(CommandError, match="There is no project 'x'"):
        told("--project", "x")
