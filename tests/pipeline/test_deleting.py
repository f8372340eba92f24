"""A deleted story is gone: rows, refs, copies and logs; whoever depended on it is told, and its number is not given again."""

from __future__ import annotations

import pytest

from pipeline import conf
from pipeline.actors import Actor
from pipeline.doctor import all_of_pipeline, examine
from pipeline.exceptions import NotAllowed, NotFound, Refused, TransitionRefused
from pipeline.git.control import list_refs
from pipeline.live.topics import frame_after, newest
from pipeline.models import Act, Dependency, Event, GateRun, Merge, Process, StageChange, Story
from pipeline.models.gate import GateState
from pipeline.roles import Role
from pipeline.services import deleting, gates, processes
from pipeline.services.deleting import delete_story
from pipeline.services.dependencies import promote, set_dependencies, unmet
from pipeline.services.stories import edit_story, find_story, perform
from tests import factories
from tests.factories import ALICE
from tests.pipeline.worlds import World


@pytest.mark.django_db
class TestRows:
    def test_a_story_without_work_goes_at_once_and_for_good(self):
        web = factories.project()
        one = factories.story(web, criteria=["works"], title="Secret plan")
        assert delete_story(one, actor=ALICE) is True
        assert not Story.objects.exists() and not StageChange.objects.exists()
        with pytest.raises(NotFound):
            find_story("web/1")
        assert factories.story(web).number == 2
        act = Act.objects.get()
        assert (act.actor, act.verb, act.subject, act.why) == (
            "alice",
            "delete",
            "story web/1",
            "Secret plan",
        )

    def test_only_an_operator_may_delete(self):
        web = factories.project()
        one = factories.story(web)
        with pytest.raises(NotAllowed, match="operator"):
            delete_story(one, actor=Actor.of(factories.person("dave", web, Role.DEVELOPER)))
        assert delete_story(one, actor=Actor.of(factories.person("olga", web, Role.OPERATOR)))

    def test_who_depended_on_it_is_told_and_never_starts_until_a_person_decides(self):
        web = factories.project()
        one, two = factories.story(web), factories.story(web)
        three = factories.story(web, depends_on=[1, 2])
        delete_story(one, actor=ALICE)
        perform(two, "archive", actor=ALICE)
        assert Dependency.objects.get(number=1).on is None
        assert promote(web.pk) == 0
        assert unmet([three.pk]) == {three.pk: ["#1 (deleted: remove that dependency)"]}
        three.refresh_from_db()
        assert "#1 (deleted: remove that dependency) is done" in three.waiting_for
        note = StageChange.objects.get(verb="dependency_deleted")
        assert note.story == three and "#1, on which it depends, was deleted by alice" in note.why
        assert Event.objects.filter(story=three, text="#3 depends on #1, which was deleted").exists()
        set_dependencies(three, [2], actor=ALICE)
        three.refresh_from_db()
        assert three.stage == "coding"

    def test_a_story_that_is_being_deleted_takes_nothing_more(self):
        web = factories.project()
        one, two = factories.story(web), factories.story(web)
        Story.objects.filter(pk=one.pk).update(deleting="bob")
        for act in (
            lambda: perform(one, "archive", actor=ALICE),
            lambda: edit_story(one, actor=ALICE, title="New"),
            lambda: delete_story(one, actor=ALICE),
            lambda: set_dependencies(one, [2], actor=ALICE),
        ):
            with pytest.raises(Refused, match="is being deleted by bob"):
                act()
        with pytest.raises(Refused, match="bob is deleting it"):
            set_dependencies(two, [1], actor=ALICE)

    def test_an_act_on_a_story_that_is_gone_is_refused_with_a_sentence(self):
        one = factories.story(factories.project())
        Story.objects.get().delete()
        with pytest.raises(NotFound, match="deleted meanwhile"):
            perform(one, "archive", actor=ALICE)

    def test_boards_are_told_to_look_again(self):
        web = factories.project()
        one = factories.story(web)
        cursor = newest(f"project:{web.pk}")
        delete_story(one, actor=ALICE)
        frame = frame_after(f"project:{web.pk}", cursor)
        assert frame is not None and "project" in frame["news"] and frame["cards"] == []
        assert Event.objects.filter(story=None, text="alice deleted #1").exists()

    def test_a_task_that_comes_late_finds_no_process(self):
        assert processes.launch(12345) is False


@pytest.mark.django_db(transaction=True)
class TestWork:
    def gone(self, world: World, story: Story) -> None:
        world.server.until(
            lambda: not Story.objects.filter(pk=story.pk).exists(), what="a deleted story", seconds=30
        )
        world.server.idle()
        control = conf.control_path(story.project.key)
        left = [ref for prefix in ("refs/huskies/", "refs/heads/") for ref in list_refs(control, prefix)]
        assert [ref for ref in left if "upstream" not in ref] == ["refs/heads/main"]
        rows = set(Process.objects.values_list("key", flat=True))
        for folder in ("copies", "trash", "sessions"):
            place = conf.home() / folder
            assert not place.exists() or list(place.iterdir()) == []
        assert {path.name for path in conf.runs().iterdir()} <= rows
        assert examine(all_of_pipeline()) == []

    def kept_at(self, story: Story) -> str:
        """The key of the work in hand, with a process that once made it."""
        control = conf.control_path(story.project.key)
        (key,) = [ref.rpartition("/")[2] for ref in list_refs(control, "refs/huskies/sessions/")]
        Process.objects.create(
            key=key,
            kind="intake",
            host=conf.host(),
            story=story,
            project=story.project,
            state="handled",
            exit={},
        )
        return key

    def test_a_story_with_a_running_gate_goes_once_the_gate_is_dead(self, world: World):
        slow = {
            ".huskies/project.yaml": "agents: []\ngate:\n  command: sh check.sh\n",
            "check.sh": "echo begun; exec sleep 600\n",
        }
        project = world.add(world.repository(slow))
        story = world.work(project, {"a.txt": "a\n"})
        assert self.kept_at(story)
        run = gates.request_gate(story, purpose="coding", commit=story.tip)
        began = GateRun.objects.filter(pk=run.pk, state=GateState.RUNNING)
        world.server.until(began.exists, what="a running gate", seconds=30)
        assert delete_story(story, actor=ALICE) is False
        marked = Story.objects.get(pk=story.pk)
        assert (marked.deleting, marked.stage) == ("alice", "coding") and "alice" in marked.held_for
        self.gone(world, story)

    def test_a_story_in_the_merge_queue_never_lands(self, world: World):
        project = world.add(world.repository())
        story = world.queued(project, {"a.txt": "a\n"})
        assert self.kept_at(story)
        world.until_merge(story, "gating")
        delete_story(story, actor=ALICE)
        self.gone(world, story)
        assert not Merge.objects.exists() and project.tip == world.refresh(project).tip

    def test_a_push_under_way_cannot_be_deleted(self, world: World):
        project = world.add(world.repository())
        story = world.queued(project, {"a.txt": "a\n"})
        world.until_merge(story, "gating")
        Merge.objects.filter(story=story).update(state="landing")
        with pytest.raises(TransitionRefused, match="is being pushed to main"):
            delete_story(story, actor=ALICE)
        assert Story.objects.get(pk=story.pk).deleting == ""
        Merge.objects.filter(story=story).update(state="gating")

    def test_what_a_refusing_repository_held_up_is_deleted_by_the_sweep(self, world: World):
        project = world.add(world.repository())
        story = world.work(project, {"a.txt": "a\n"})
        self.kept_at(story)
        control = conf.control_path(project.key)
        (ref,) = list_refs(control, "refs/huskies/sessions/")
        lock = control / f"{ref}.lock"
        lock.touch()
        assert delete_story(story, actor=ALICE) is False
        deleting.sweep()
        assert Story.objects.get(pk=story.pk).deleting == "alice"
        lock.unlink()
        self.gone(world, story)
