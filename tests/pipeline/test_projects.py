"""What registering a repository promises, and how its project file comes to hold."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone

from pipeline import conf, moves, signals
from pipeline.actors import OPERATOR_ON_HOST, Actor
from pipeline.exceptions import BadInput, NotAllowed, Refused, TransitionRefused
from pipeline.git.control import read_ref
from pipeline.handlers import prune
from pipeline.models import Event, Process, Project, ProjectVersion
from pipeline.services import processes, projects
from tests import factories
from tests.factories import ALICE, commit_files, git
from tests.pipeline.worlds import GATE, World


def test_a_checked_out_repository_becomes_a_ready_project(world: World) -> None:
    repo = world.repository({"README.md": "hello\n"})
    project = world.add(repo)
    assert (project.name, project.state, project.base_branch, project.source_kind) == (
        "shop",
        "ready",
        "main",
        "checkout",
    )
    assert project.tip == git("rev-parse", "HEAD", cwd=repo)
    assert read_ref(conf.control_path(project.key), "refs/heads/main") == project.tip
    assert Event.objects.filter(project=project, text__contains="added the project").exists()


def test_a_bare_repository_and_a_url_are_told_apart(world: World) -> None:
    repo = world.repository()
    git("clone", "-q", "--bare", str(repo), str(world.folder / "shop.git"), cwd=world.folder)
    bare = world.add(world.folder / "shop.git", name="bare")
    remote = world.add(f"file://{world.folder}/shop.git")
    assert (bare.source_kind, remote.source_kind, remote.name) == ("bare", "remote", "shop")
    assert bare.tip == remote.tip


def test_a_name_that_is_used_gets_a_number(world: World) -> None:
    names = [world.add(world.repository(name=f"{folder}/My_Shop.git")).name for folder in ("a", "b", "c")]
    assert names == ["my-shop", "my-shop-2", "my-shop-3"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-x",
        "--upload-pack=touch x",
        "ext::sh -c id",
        "https://me:secret@example.org/x.git",
        "ftp://example.org/x",
        "a\nb",
        "\x1b[2J",
    ],
)
def test_an_address_that_is_none_is_refused_at_once(text: str, db: None) -> None:
    with pytest.raises(BadInput) as refused:
        projects.add_project(text, actor=ALICE)
    assert "secret" not in str(refused.value)
    assert not Project.objects.exists() and not Process.objects.exists()


def test_the_same_repository_is_not_registered_twice(world: World) -> None:
    repo = world.repository()
    world.add(repo)
    with pytest.raises(BadInput, match="registered already, as project shop"):
        projects.add_project(f"{repo}/", actor=ALICE)


def test_only_an_admin_adds_a_project(db: None) -> None:
    with pytest.raises(NotAllowed, match="needs the role admin"):
        projects.add_project("somewhere", actor=Actor.of(factories.person("bob")))


def test_a_repository_without_a_commit_is_refused_by_name_and_taken_after_the_first_one(world: World) -> None:
    repo = world.folder / "new"
    repo.mkdir()
    git("init", "-q", "-b", "main", cwd=repo)
    project = world.add(repo)
    assert project.state == "refused" and "no commit yet" in project.reason
    commit_files(repo, {"a": "a\n"}, "first")
    project = world.refresh(project)
    assert (project.state, project.reason) == ("ready", "")


def test_a_missing_base_branch_is_refused_with_those_there_are(world: World) -> None:
    project = world.add(world.repository(), base_branch="develop")
    assert project.state == "refused" and "no branch develop" in project.reason and "main" in project.reason


def test_a_folder_that_is_no_repository_is_refused(world: World) -> None:
    (world.folder / "plain").mkdir()
    project = world.add(world.folder / "plain")
    assert project.state == "refused" and "not a git repository" in project.reason


def test_a_first_fetch_whose_runner_dies_is_made_again(world: World) -> None:
    project = projects.add_project(str(world.repository()), actor=ALICE)
    processes.reclaim(Process.objects.get(kind="fetch"), "the test gave it up")
    world.server.idle()
    project.refresh_from_db()
    assert project.state == "ready"
    assert Process.objects.filter(kind="fetch").count() >= 2


def test_without_a_file_the_defaults_hold(world: World) -> None:
    project = world.add(world.repository({"README.md": "hello\n"}))
    version = projects.active_version(project)
    assert version is not None and version.blob == "none" and project.version == version
    assert projects.active_file(project).gate is None


def test_a_file_that_names_a_gate_waits_for_an_admin_and_the_defaults_hold_meanwhile(world: World) -> None:
    heard: list[str] = []

    def listen(sender: object, *, project: Project, file: object, **_: object) -> None:
        heard.append(project.name)

    signals.project_file_active.connect(listen)
    project = world.add(world.repository(), approve=False)
    proposed = projects.proposed_version(project)
    assert proposed is not None and any("sh check.sh" in sentence for sentence in proposed.needs)
    assert projects.active_file(project).gate is None and heard == ["shop"]
    with pytest.raises(NotAllowed):
        projects.approve_version(proposed, actor=Actor.of(factories.person("bob")))
    projects.approve_version(proposed, actor=ALICE)
    gate = projects.active_file(project).gate
    assert gate is not None and gate.command == "sh check.sh"
    assert heard == ["shop", "shop"]
    assert ProjectVersion.objects.filter(project=project, state="active").get() == proposed
    with pytest.raises(Refused, match="does not wait for an approval"):
        projects.approve_version(proposed, actor=ALICE)


def test_a_harmless_edit_holds_at_once_and_a_broken_one_keeps_the_last_good_version(world: World) -> None:
    repo = world.repository()
    project = world.add(repo)
    commit_files(repo, {".huskies/project.yaml": GATE + "max_retries: 7\n"}, "more retries")
    project = world.refresh(project)
    assert projects.active_file(project).max_retries == 7
    commit_files(repo, {".huskies/project.yaml": GATE + "max_retries: seven\n"}, "a slip")
    project = world.refresh(project)
    assert ".huskies/project.yaml:4:" in project.file_error
    assert projects.active_file(project).max_retries == 7
    commit_files(repo, {".huskies/project.yaml": GATE + "max_retries: 7\n"}, "mended")
    assert world.refresh(project).file_error == ""


def test_a_rejected_version_is_not_asked_about_again(world: World) -> None:
    repo = world.repository()
    project = world.add(repo, approve=False)
    proposed = projects.proposed_version(project)
    assert proposed is not None
    projects.reject_version(proposed, actor=ALICE)
    commit_files(repo, {"README.md": "more\n"}, "elsewhere")
    world.refresh(project)
    assert projects.proposed_version(project) is None
    assert ProjectVersion.objects.filter(project=project).count() == 2  # the defaults and the rejected one


def test_a_newer_proposal_takes_the_place_of_an_older_one(world: World) -> None:
    repo = world.repository()
    project = world.add(repo, approve=False)
    commit_files(repo, {".huskies/project.yaml": GATE.replace("check", "test")}, "another gate")
    world.refresh(project)
    proposed = projects.proposed_version(project)
    assert proposed is not None and "sh test.sh" in " ".join(proposed.needs)


def test_a_base_branch_that_vanishes_is_said_and_its_return_is_noticed(world: World) -> None:
    repo = world.repository()
    project = world.add(repo)
    git("branch", "-m", "main", "trunk", cwd=repo)
    project = world.refresh(project)
    assert project.state == "ready" and "no branch main" in project.reason
    git("branch", "-m", "trunk", "main", cwd=repo)
    assert world.refresh(project).reason == ""


def test_a_rewritten_branch_is_not_followed_until_an_admin_accepts_it(world: World) -> None:
    repo = world.repository()
    project = world.add(repo)
    before = project.tip
    git("commit", "-q", "--amend", "-m", "rewritten", cwd=repo)
    project = world.refresh(project)
    assert project.tip == before and "was rewritten" in project.reason
    project = projects.accept_history(project, actor=OPERATOR_ON_HOST)
    assert project.tip == git("rev-parse", "HEAD", cwd=repo) and project.reason == ""
    with pytest.raises(Refused, match="was not rewritten"):
        projects.accept_history(project, actor=OPERATOR_ON_HOST)


def test_the_base_branch_that_an_active_file_names_is_the_one_that_is_followed(world: World) -> None:
    repo = world.repository({"README.md": "hello\n"})
    git("branch", "develop", cwd=repo)
    project = world.add(repo)
    commit_files(repo, {".huskies/project.yaml": "base_branch: develop\n"}, "develop from now on")
    project = world.refresh(project)
    proposed = projects.proposed_version(project)
    assert proposed is not None and project.base_branch == "main"
    projects.approve_version(proposed, actor=ALICE)
    world.server.idle()
    project.refresh_from_db()
    assert project.base_branch == "develop" and project.tip == git("rev-parse", "develop", cwd=repo)


def test_a_story_branch_of_somebody_else_is_named(world: World) -> None:
    repo = world.repository()
    git("branch", "huskies/story-2", cwd=repo)
    project = world.add(repo)
    first, second = factories.story(project), factories.story(project)
    assert projects.branch_taken(first) == ""
    assert "huskies/story-2 of somebody else's" in projects.branch_taken(second)
    with pytest.raises(TransitionRefused, match="huskies/story-2 of somebody else's"), transaction.atomic():
        moves.move(second, "start", actor=ALICE)
    second.refresh_from_db()
    assert second.stage == "backlog"


def test_small_processes_that_are_over_are_forgotten_but_for_the_newest_fetch(world: World) -> None:
    project = world.add(world.repository())
    for _ in range(2):
        world.refresh(project)
    newest = Process.objects.filter(kind="fetch").latest("pk")
    Process.objects.update(ended_at=timezone.now() - timedelta(hours=2))
    prune.prune()
    assert list(Process.objects.all()) == [newest]
    assert [folder.name for folder in conf.runs().iterdir()] == [newest.key]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> object:
    call_command("project", *words, "--json")
    return json.loads(capsys.readouterr().out)


def test_the_command_adds_and_answers_at_once_without_a_running_server(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = world.repository()
    row = said(capsys, "add", str(repo), "--name", "web")
    assert isinstance(row, dict)
    assert (row["name"], row["state"], row["tip"]) == ("web", "ready", git("rev-parse", "HEAD", cwd=repo))
    assert row["file"]["needs_approval"] and row["file"]["active"] == "none"
    approved = said(capsys, "approve", "web")
    assert isinstance(approved, dict) and approved["file"]["needs_approval"] == []
    assert said(capsys, "list") == [approved]


def test_adding_a_refused_repository_again_looks_at_it_anew(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = world.folder / "fresh"
    git("init", "-q", "-b", "main", str(repo), cwd=world.folder)
    with pytest.raises(CommandError, match="has no commit yet: make a first one, then add it again"):
        call_command("project", "add", str(repo))
    git("commit", "-q", "--allow-empty", "-m", "first", cwd=repo)
    with pytest.raises(CommandError, match="no branch dev"):
        call_command("project", "add", str(repo), "--base", "dev")
    row = said(capsys, "add", str(repo), "--base", "main")
    assert isinstance(row, dict) and (row["name"], row["state"], row["reason"]) == ("fresh", "ready", "")
    assert Project.objects.count() == 1


def test_a_path_that_is_no_folder_is_refused_without_a_row(world: World) -> None:
    (world.folder / "file").write_text("")
    for name, why in (("file", "it is no folder"), ("missing", "there is no such folder")):
        with pytest.raises(CommandError, match=why):
            call_command("project", "add", str(world.folder / name))
    assert not Project.objects.exists()


def test_the_command_says_why_a_repository_is_refused(world: World) -> None:
    (world.folder / "plain").mkdir()
    with pytest.raises(CommandError, match="not a git repository"):
        call_command("project", "add", str(world.folder / "plain"))
    with pytest.raises(CommandError, match="no project 'web'"):
        call_command("project", "refresh", "web")


def test_init_proposes_a_file_that_can_be_read_and_never_overwrites_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "package.json").write_text('{"scripts": {"test": "jest"}}')
    call_command("project", "init", str(tmp_path))
    text = capsys.readouterr().out
    assert "npm test" in text and not (tmp_path / ".huskies").exists()
    call_command("project", "init", str(tmp_path), "--write")
    assert (tmp_path / ".huskies/project.yaml").read_text() == text
    with pytest.raises(CommandError, match="is there already"):
        call_command("project", "init", str(tmp_path), "--write")
