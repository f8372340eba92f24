"""A coder's plan outlives its session: kept out of git and of what lands, masked, brought to the next session, shown to people."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from agents.services import pool
from pipeline import conf
from pipeline.processes.copies import PLAN
from tests.e2e.shop import Shop, wait_for, write
from tests.factories import ALICE, git

TEXT = "## Plan\n\n- It is red: `button.txt`, a new line\n- left: the tests\n"


def test_a_plan_goes_from_session_to_session_and_never_into_git(shop: Shop, client: Client) -> None:
    project = shop.open()
    first = [write(PLAN, TEXT), write("button.txt"), {"say": "planned"}, wait_for()]
    then = [{"run": f"cp {PLAN} seen.txt"}, write(PLAN, TEXT + "- done: the button\n"), {"run": "git add -A"}]
    story = shop.start(project, first, then)
    session = shop.until_line(story, "planned")
    assert (
        f"{conf.copy_path(session.key)}/{PLAN}" in session.prompt
        and "before you change any code" in session.prompt
    )
    pool.stop_story(story, actor=ALICE)
    shop.until_ended(session)
    assert shop.fresh(story).plan == TEXT.strip()

    pool.start_story(shop.fresh(story), actor=ALICE)
    story = shop.until_stage(story, "done")
    shop.settled()
    second = shop.sessions(story)[-1]
    assert "Read it first" in second.prompt
    assert story.plan.endswith("- done: the button")
    assert (shop.repo / "seen.txt").read_text() == TEXT.strip(), "the second session found it in its copy"
    control = conf.control_path(project.key)
    for commit in (session.saved, second.saved, story.landed):
        assert PLAN not in git("ls-tree", "-r", "--name-only", commit, cwd=control).splitlines()
    client.force_login(User.objects.create_superuser("root"))
    page = client.get(reverse("story", args=[project.name, story.number])).content.decode()
    assert "The agent&#x27;s plan" in page or "The agent's plan" in page
    assert "done: the button" in page


@pytest.mark.parametrize("planted", ["link", "fifo", "folder", "none"])
def test_what_stands_in_the_plans_place_harms_nobody(shop: Shop, planted: str) -> None:
    project = shop.open()
    make = {
        "link": f"ln -s /etc/hostname {PLAN}",
        "fifo": f"mkfifo {PLAN}",
        "folder": f"mkdir {PLAN}",
        "none": "true",
    }[planted]
    story = shop.start(project, [{"run": make}, write("button.txt")])
    story = shop.until_stage(story, "done")
    assert story.plan == ""


def test_a_repository_whose_folder_leads_elsewhere_gets_no_plan_there(shop: Shop) -> None:
    """An agent that puts a link in the folder's place cannot have the next plan written through it."""
    project = shop.open()
    outside = shop.repo.parent / "outside"
    outside.mkdir()
    first = [write(PLAN, TEXT), write("a.txt"), {"say": "planned"}, wait_for()]
    story = shop.start(project, first, [write("b.txt")])
    session = shop.until_line(story, "planned")
    pool.stop_story(story, actor=ALICE)
    shop.until_ended(session)
    story = shop.fresh(story)
    work = shop.repo.parent / "work"
    control = conf.control_path(project.key)
    git("worktree", "add", "-q", "--detach", str(work), story.tip, cwd=control)
    git("rm", "-rq", ".huskies", cwd=work)
    (work / ".huskies").symlink_to(outside)
    git("add", "-A", cwd=work)
    git("commit", "-qm", "a trap", cwd=work)
    tip = git("rev-parse", "HEAD", cwd=work)
    git("update-ref", f"refs/heads/{story.branch}", tip, cwd=control)
    type(story).objects.filter(pk=story.pk).update(tip=tip)
    session.__class__.objects.filter(pk=session.pk).update(saved=tip)
    pool.start_story(shop.fresh(story), actor=ALICE)
    second = shop.sessions(story)[-1]
    shop.until_ended(second)
    assert list(outside.iterdir()) == []
