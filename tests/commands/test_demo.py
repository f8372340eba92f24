"""The demo: what a newcomer sees within a minute, and that none of it is pretended but the coders."""

import json
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.urls import reverse
from pytest_django import Settings

from agents.models import Agent, LedgerRow, Session
from agents.runtimes.scripted import find_script, parse_script
from huskies_site import demo_files, doctoring
from huskies_site.demo import DemoNotMade, start_demo
from pipeline.actors import Actor
from pipeline.exceptions import NotAllowed
from pipeline.models import GateRun, Project, ProjectVersion, StageChange, Story
from pipeline.projectfile import PROJECT_FILE, parse, registered_sections
from tests import factories
from tests.factories import ALICE, git
from tests.serving import Server


@pytest.fixture
def home(tmp_path: Path, settings: Settings) -> Path:
    folder = tmp_path / "data"
    settings.HUSKIES_HOME = folder
    settings.HUSKIES_NO_QUEUE = True
    factories.capacity()
    return folder


@pytest.fixture
def server(transactional_db: None, home: Path) -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_three_stories_are_worked_by_two_coders_and_land_in_the_demos_repository(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = [
        replace(story, description=story.description.replace("sleep: 1\n", "sleep: 0.2\n"))
        for story in demo_files.STORIES
    ]
    monkeypatch.setattr(demo_files, "STORIES", hurried)
    project = start_demo(ALICE)
    seen: set[tuple[int, str]] = set()

    def done() -> bool:
        rows = list(Story.objects.filter(project=project))
        seen.update((row.number, row.waiting_for) for row in rows if row.waiting_for)
        assert not [row.reason for row in rows if row.stage in ("blocked", "merge_failure")]
        return all(row.stage == "done" for row in rows)

    server.until(done, what="three stories in done", seconds=60)
    server.idle()
    project.refresh_from_db()

    # One could see why nothing happened: first the repository was fetched, then both coders were at work.
    assert {number for number, why in seen if "is being prepared" in why} == {1, 2, 3}
    assert [why for number, why in seen if number == 3 and why.startswith("2 of 2 coders busy")]
    assert Agent.objects.filter(project=project, configured=True).count() == 2

    # The first try of "Add power" was wrong: the gate said so, and the same conversation mended it.
    power = Story.objects.get(project=project, title="Add power")
    verdicts = GateRun.objects.filter(story=power, purpose="coding").order_by("id")
    assert list(verdicts.values_list("verdict", flat=True)) == ["failed", "passed"]
    first, second = power.sessions.order_by("id")
    assert (first.agent, first.conversation) == (second.agent, second.conversation)
    assert second.resumed and "test_power" in second.prompt
    assert set(Session.objects.values_list("outcome", flat=True)) == {"done"}

    # All of it is on the branch of a real repository, whose tests pass now.
    source = Path(project.source)
    log = git("log", "--format=%s", "main", cwd=source).splitlines()
    assert sorted(log[:3]) == ["Add mean (#3)", "Add power (#2)", "Mend subtract (#1)"]
    assert "return a - b" in (source / "calculator/basic.py").read_text()
    assert git("status", "--porcelain", cwd=source) == ""

    # The stand-ins use no model, so the demo books no tokens and no money.
    assert not LedgerRow.objects.exists()
    assert doctoring.lies(0) == []


@pytest.mark.django_db(transaction=True)
def test_without_a_start_the_stories_stay_in_the_backlog(home: Path) -> None:
    said = StringIO()
    call_command("demo", "--no-start", "--json", stdout=said)
    answer = json.loads(said.getvalue())
    assert answer["project"] == "demo"
    assert [(s["number"], s["stage"], s["agent"]) for s in answer["stories"]] == [
        (1, "backlog", None),
        (2, "backlog", None),
        (3, "backlog", None),
    ]


@pytest.mark.django_db(transaction=True)
def test_the_demo_says_that_the_server_is_not_running_and_a_second_one_gets_a_number(home: Path) -> None:
    said = StringIO()
    call_command("demo", stdout=said)
    assert "scripted stand-ins, not an AI" in said.getvalue()
    assert "The server is not running; the stories wait until it is: ./huskies up." in said.getvalue()
    assert start_demo(ALICE).name == "demo-2"
    assert Project.objects.filter(source__startswith=str(home)).count() == 2


@pytest.mark.django_db(transaction=True)
def test_exactly_the_file_that_was_written_holds_and_its_approval_is_logged(home: Path) -> None:
    boss = factories.person("boss", is_superuser=True)
    project = start_demo(Actor.of(boss), start=False)
    version = ProjectVersion.objects.get(project=project, state="active")
    written = (Path(project.source) / PROJECT_FILE).read_text()
    assert version.text == written and version.approved_by == boss
    assert version.blob == git("rev-parse", f"HEAD:{PROJECT_FILE}", cwd=Path(project.source))
    assert StageChange.objects.filter(story__project=project, verb="create", actor="boss").count() == 3


@pytest.mark.django_db(transaction=True)
def test_the_button_on_the_empty_home_page_leads_to_the_demos_board(home: Path, client) -> None:
    client.force_login(factories.person("boss", is_superuser=True))
    answer = client.post(reverse("demo"))
    assert (answer.status_code, answer["Location"]) == (302, reverse("board", args=["demo"]))
    page = client.get(answer["Location"])
    assert page.status_code == 200 and b"is being prepared" in page.content


@pytest.mark.django_db(transaction=True)
def test_only_an_admin_of_the_whole_server_starts_the_demo(home: Path, client) -> None:
    dora = factories.person("dora")
    with pytest.raises(NotAllowed):
        start_demo(Actor.of(dora))
    client.force_login(dora)
    assert client.post(reverse("demo")).status_code == 403
    assert not Project.objects.exists() and not (home / "demo").exists()


@pytest.mark.django_db(transaction=True)
def test_a_demo_that_cannot_be_made_says_why_and_leaves_nothing_behind(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(demo_files.FILES, "README.md/impossible", "")
    with pytest.raises(DemoNotMade, match="could not be made"):
        start_demo(ALICE)
    assert not Project.objects.exists() and list((home / "demo").iterdir()) == []


def test_the_demos_file_is_of_the_form_that_every_projects_file_has() -> None:
    file = parse(demo_files.FILES[PROJECT_FILE], sections=registered_sections())
    assert file.gate is not None and file.default_qa == "server"


@pytest.mark.parametrize("story", demo_files.STORIES, ids=lambda story: story.title)
def test_a_demo_story_takes_long_enough_to_be_watched_and_ends_within_the_minute(
    story: demo_files.DemoStory,
) -> None:
    turns = parse_script(find_script(story.description))
    pauses = [value for turn in turns for step in turn for name, value in step.items() if name == "sleep"]
    assert 5 <= sum(pauses) <= 10 and max(pauses) <= 1


@pytest.mark.parametrize("story", demo_files.STORIES, ids=lambda story: story.title)
def test_a_demo_story_says_that_its_agent_is_no_ai(story: demo_files.DemoStory) -> None:
    assert "It is no AI" in story.description and story.criteria
