"""A story that is deleted while its agent works: the agent is stopped, nothing of it is left, and it does not come back."""

from __future__ import annotations

from agents.models import Budget, LedgerRow, Session
from agents.services import assigning, pool, sessions
from huskies_site import doctoring
from pipeline import conf
from pipeline.git.control import list_refs
from pipeline.models import Process, Story
from pipeline.processes.identity import marked_processes
from pipeline.processes.runfolder import MARKER
from pipeline.services.deleting import delete_story
from tests.e2e.shop import Shop, wait_for, write
from tests.factories import ALICE

TURN = [{"say": "I begin"}, write("a.txt", "a\n"), {"commit": "Add a"}]


def gone(shop: Shop, story: Story, *keys: str) -> None:
    rows = Story.objects.filter(pk=story.pk)
    shop.server.until(lambda: not rows.exists(), what=f"the end of {story.label}", seconds=30)
    (conf.home() / "copies").mkdir(exist_ok=True)
    shop.settled()
    assert [Model.objects.count() for Model in (Session, LedgerRow, Budget)] == [0, 0, 0]
    assert not Process.objects.exclude(kind__in=("fetch", "discard")).exists()
    control = conf.control_path(story.project.key)
    assert list_refs(control, "refs/huskies/sessions/") == list_refs(control, "refs/huskies/bases/") == {}
    assert set(list_refs(control, "refs/heads/")) == {"refs/heads/main"}
    for folder in ("copies", "trash", "sessions", "runs"):
        place = conf.home() / folder
        assert not place.exists() or not {path.name for path in place.iterdir()} & set(keys)
    assert not any(marked_processes(MARKER, key) for key in keys)
    assert doctoring.lies(0) == []
    assert assigning.auto_assign() == 0


def test_a_running_agent_is_stopped_and_all_it_did_is_gone(shop: Shop) -> None:
    project = shop.open()
    story = shop.start(project, [*TURN, {"say": "half way"}, wait_for()])
    Budget.objects.create(scope="story", subject=str(story.pk), usd=1)
    session = shop.until_line(story, "half way")
    assert delete_story(story, actor=ALICE) is False
    waits = Story.objects.get(pk=story.pk)
    assert waits.held_for.startswith("being deleted by alice")
    gone(shop, story, session.key)


def test_a_claim_that_was_not_launched_never_is(shop: Shop) -> None:
    story = shop.start(shop.open(), TURN)
    (session,) = shop.sessions(story)
    delete_story(story, actor=ALICE)
    gone(shop, story, session.key)


def test_a_story_with_ended_sessions_goes_with_their_refs_and_folders(shop: Shop) -> None:
    story = shop.start(shop.open(), [*TURN, wait_for()])
    session = shop.until_line(story, "I begin")
    pool.stop_story(story, actor=ALICE)
    shop.until_ended(session)
    shop.server.idle()
    assert list_refs(conf.control_path(story.project.key), "refs/huskies/sessions/")
    assert delete_story(shop.fresh(story), actor=ALICE) is True
    gone(shop, story, session.key)


def test_a_done_story_can_be_deleted_and_its_change_stays(shop: Shop) -> None:
    story = shop.start(shop.open(), TURN)
    shop.until_stage(story, "done")
    shop.server.idle()
    keys = [session.key for session in shop.sessions(story)]
    assert delete_story(shop.fresh(story), actor=ALICE) is True
    gone(shop, story, *keys)
    assert (shop.repo / "a.txt").exists()


def test_a_late_stop_of_a_deleted_story_changes_nothing(shop: Shop) -> None:
    sessions.carry_out_stop(12345)
    pool.look_later(12345)
