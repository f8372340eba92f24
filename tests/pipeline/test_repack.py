"""A control repository gathers a pack with each session; the sweep joins them, and nothing is lost."""

import pytest

from pipeline import conf
from pipeline.handlers import repack
from pipeline.models import Process
from tests.factories import git
from tests.pipeline.worlds import World


def test_many_packs_are_joined_into_one_and_every_commit_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repack, "MANY_PACKS", 3)
    project = world.add(world.repository())
    story = world.work(project, {"a": "1\n"})
    control = conf.control_path(project.key)
    repack.repack_all()
    assert repack.packs(control) < 3 and not Process.objects.filter(kind="repack").exists()
    for number in range(3):
        story = world.more_work(story, {"a": f"{number} more\n"})
    assert repack.packs(control) >= 3
    repack.repack_all()
    repack.repack_all()
    assert Process.objects.filter(kind="repack").count() == 1
    world.server.idle()
    assert repack.packs(control) == 1
    git("--git-dir", str(control), "fsck", "--strict", "--connectivity-only", story.tip, cwd=world.folder)
