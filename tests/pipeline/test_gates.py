"""The gate: on what it runs, what its end means, and where green and red work go."""

import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F

from pipeline import conf, moves, signals
from pipeline.exceptions import AlreadyWorked
from pipeline.gates import Judgement, judge, readable, tail
from pipeline.models import GateRun, Process, Project, Story
from pipeline.models.process import ProcessState
from pipeline.processes.identity import Identity, send_signal
from pipeline.services import gates, merges
from pipeline.services.stories import perform
from tests.factories import ALICE, git
from tests.logs import events
from tests.pipeline.worlds import FILES, World


def judged(outcome: str = "exited", step: str = "gate", **more: Any) -> Judgement:
    record = {"outcome": outcome, "step": step, "code": None, "signal": None, "main_started": True, **more}
    return judge(record, lost=False, timeouts={"gate": 1200, "setup of web, command 1": 60})


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (judged(code=0), "passed", ""),
        (judged(code=3), "failed", "The gate failed with exit code 3."),
        (judged(signal=9), "failed", "killed by SIGKILL"),
        (judged(code=137), "failed", "killed by SIGKILL"),
        (judged("timeout"), "failed", "did not end within 1200 s"),
        (
            judged("timeout", "setup of web, command 1"),
            "failed",
            "setup of web, command 1 did not end within 60 s",
        ),
        (
            judged("step_failed", "setup of web, command 1", code=1),
            "failed",
            "setup of web, command 1 failed with exit code 1",
        ),
        (judged("step_failed", "checkout", code=128, main_started=False), "again", "checkout"),
        (judged("spawn_failed", reason="no new process can be made (x)"), "again", "no new process"),
        (judged("spawn_failed", reason="there is no such program"), "failed", "no such program"),
        (judged("stopped", reason="the runner got signal 15"), "again", "signal 15"),
        (judged("lease"), "again", "lease"),
        (judged(code=0, main_started=False), "again", "never began"),
        (judge(None, lost=True, timeouts={}), "again", "died"),
        (
            judge({"outcome": "not_launched", "reason": "no room"}, lost=False, timeouts={}),
            "again",
            "no room",
        ),
    ],
)
def test_what_the_projects_commands_did_is_a_verdict_and_what_the_machine_did_is_none(
    said: Judgement, kind: str, words: str
) -> None:
    assert said.kind == kind and words in said.reason


def test_output_is_kept_without_what_would_move_a_cursor_or_reorder_text() -> None:
    text = "\x1b[31mred\x1b[0m\x1b]0;title\x07 10%\r 99%\rdone\x00\x9b2J \u202eevil\ttab"
    assert readable(text) == "done evil\ttab"
    assert readable("\x1b[31mred\x1b[0m \x1b(Bplain\r") == "red plain"


def test_the_tail_reads_no_more_than_it_keeps() -> None:
    asked = []

    def endless() -> Iterator[str]:
        for number in range(1_000_000):
            asked.append(number)
            yield f"line {number}"

    text = tail(endless(), most=100)
    assert len(text) == 100 and text.startswith("…") and text.endswith("line 1\nline 0")
    assert len(asked) < 20


def asked(story: Story) -> GateRun:
    return gates.request_gate(story, purpose="coding", commit=story.tip)


def over(world: World, run: GateRun) -> GateRun:
    world.server.idle()
    run.refresh_from_db()
    assert run.state == "over"
    return run


def with_gate(world: World, command: str, more: str = "") -> Project:
    return world.add(
        world.repository(
            {**FILES, ".huskies/project.yaml": f"agents: []\ngate:\n  command: {command}\n{more}"}
        )
    )


def test_green_work_goes_to_the_merge_queue_and_its_copy_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "hunter2")
    project = with_gate(world, "sh check.sh && env && ls -a && git status --short")
    story = world.work(project, {"feature.txt": "new\n"})
    monkeypatch.setattr(merges, "advance", lambda project_id: None)
    run = over(world, asked(story))
    story.refresh_from_db()
    assert (run.verdict, run.reason, run.commit) == ("passed", "", story.tip)
    assert "all is well" in run.output and "feature.txt" in run.output and "hunter2" not in run.output
    assert (story.stage, story.fence, story.waiting_for, run.fence) == ("merge", 1, "", 1)
    assert run.started_at and run.ended_at and run.started_at < run.ended_at
    assert run.process is not None
    assert not conf.copy_path(run.process.key).exists() and not conf.session_path(run.process.key).exists()
    assert not list((conf.home() / "trash").iterdir())
    assert story.changes.filter(verb="gate", why__contains="passed").exists()


def test_red_work_stays_in_coding_and_whoever_listens_is_told_with_the_output(world: World) -> None:
    told: list[tuple[str, str]] = []

    def listen(sender: object, *, run: GateRun, **_: object) -> None:
        told.append((run.verdict, run.output))

    signals.gate_verdict.connect(listen)
    project = with_gate(world, "echo so far; echo and no further >&2; exit 4")
    story = world.work(project, {"a": "a\n"})
    run = over(world, asked(story))
    story.refresh_from_db()
    assert (run.verdict, run.reason, story.stage) == ("failed", "The gate failed with exit code 4.", "coding")
    assert told == [("failed", "so far\nand no further")]


def test_a_setup_that_fails_is_named_and_the_gate_does_not_run(world: World) -> None:
    components = "components:\n  - name: web\n    setup: [echo setting up, 'exit 9']\n"
    project = with_gate(world, "echo the gate ran", components)
    run = over(world, asked(world.work(project, {"a": "a\n"})))
    assert run.verdict == "failed" and "setup of web, command 2 failed with exit code 9" in run.reason
    assert "setting up" in run.output and "the gate ran" not in run.output


def test_a_gate_that_hangs_is_stopped_at_its_time_out(world: World) -> None:
    project = with_gate(world, "echo begun; sleep 600 & sleep 600", "  timeout: 1s\n")
    run = over(world, asked(world.work(project, {"a": "a\n"})))
    assert (run.verdict, run.reason) == ("failed", "The gate did not end within 1 s and was stopped.")


def test_the_same_tree_is_not_judged_twice_by_the_same_gate(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merges, "advance", lambda project_id: None)
    project = with_gate(world, "sh check.sh")
    first = over(world, asked(world.work(project, {"a": "a\n"})))
    before = Process.objects.filter(kind="gate").count()
    story = world.work(project, {"a": "a\n"})
    again = asked(story)
    story.refresh_from_db()
    assert (again.state, again.verdict, story.stage) == ("over", "passed", "merge")
    assert again.tree == first.tree and f"gate run {first.pk}" in again.reason
    assert Process.objects.filter(kind="gate").count() == before


def test_without_a_gate_a_person_looks_and_the_page_says_so(world: World) -> None:
    project = world.add(world.repository({".huskies/project.yaml": "agents: []\n"}))
    story = world.work(project, {"a": "a\n"})
    run = asked(story)
    story.refresh_from_db()
    assert (run.verdict, story.stage) == ("skipped", "qa")
    assert "No gate is configured" in story.waiting_for


@pytest.mark.parametrize(
    ("values", "words"),
    [({"qa": "human"}, "A person"), ({"qa": "agent"}, "qa agent"), ({"kind": "spike"}, "A person")],
)
def test_green_work_waits_in_qa_for_whom_the_story_says(
    world: World, values: dict[str, str], words: str
) -> None:
    story = world.work(with_gate(world, "sh check.sh"), {"a": "a\n"}, **values)
    over(world, asked(story))
    story.refresh_from_db()
    assert story.stage == "qa" and words in story.waiting_for


def test_a_change_of_what_judges_the_work_waits_for_an_admin(world: World) -> None:
    story = world.work(with_gate(world, "sh check.sh"), {"check.sh": "exit 0\n", "a": "a\n"})
    over(world, asked(story))
    story.refresh_from_db()
    assert story.stage == "merge" and "(check.sh)" in story.needs_approval and story.waiting_for
    world.server.idle()
    story.refresh_from_db()
    assert story.stage == "merge" and not story.merges.exists()
    perform(story, "approve_files", actor=ALICE)
    world.until_stage(story, "done")


def test_a_cancelled_run_is_over_when_its_process_is_dead_and_moves_nothing(world: World) -> None:
    project = with_gate(world, "trap '' TERM; echo begun; sleep 600")
    story = world.work(project, {"a": "a\n"})
    run = asked(story)
    world.server.until(lambda: run.process and LogLine.seen(run.process, "begun"), what="a gate that runs")
    with pytest.raises(AlreadyWorked, match="gate still runs"):
        gates.request_gate(story, purpose="coding", commit=project.tip)
    with transaction.atomic():
        Story.objects.filter(pk=story.pk).update(held_for="stopped by alice", fence=F("fence") + 1)
        gates.cancel(run, by="alice")
    run.refresh_from_db()
    assert run.state == "running"
    run = over(world, run)
    story.refresh_from_db()
    assert (run.verdict, run.reason, story.stage) == ("skipped", "Stopped by alice.", "coding")
    assert gates.owed(story)
    assert gates.live_run(story) is None


class LogLine:
    @staticmethod
    def seen(process: Process, text: str) -> bool:
        return any(line.body["text"] == text for line in events(process, "line"))


def test_a_person_who_takes_the_story_away_ends_its_gate(world: World) -> None:
    story = world.work(with_gate(world, "echo begun; sleep 600"), {"a": "a\n"})
    run = asked(story)
    world.server.until(lambda: run.process and LogLine.seen(run.process, "begun"), what="a gate that runs")
    perform(story, "park", actor=ALICE)
    run = over(world, run)
    story.refresh_from_db()
    assert (run.verdict, story.stage) == ("skipped", "backlog")


def test_a_gate_whose_runner_dies_is_run_again_and_given_up_after_three(world: World) -> None:
    story = world.work(with_gate(world, "echo begun; sleep 600"), {"a": "a\n"})
    run = asked(story)
    for number in range(3):
        process = Process.objects.filter(kind="gate").latest("pk")
        world.server.until(partial(LogLine.seen, process, "begun"), what=f"try {number}")
        process.refresh_from_db()
        assert send_signal(
            Identity(process.pid or 0, process.start_time or 0, process.boot_id), signal.SIGKILL
        )
        handled = Process.objects.filter(pk=process.pk, state=ProcessState.HANDLED)
        world.server.until(handled.all().exists, what=f"the end of try {number}")
    run = over(world, run)
    assert (run.verdict, run.tries) == ("errored", 3) and "in 3 tries" in run.reason


def test_a_verdict_of_older_work_keeps_its_row_and_moves_nothing(world: World) -> None:
    story = world.work(with_gate(world, "sh check.sh"), {"a": "a\n"})
    run = asked(story)
    Story.objects.filter(pk=story.pk).update(fence=F("fence") + 1, held_for="held by alice")
    run = over(world, run)
    story.refresh_from_db()
    assert (run.verdict, story.stage) == ("passed", "coding")


def test_work_that_passed_while_it_was_frozen_goes_on_afterwards(world: World) -> None:
    story = world.work(with_gate(world, "sh check.sh"), {"a": "a\n"})
    Story.objects.filter(pk=story.pk).update(frozen=True)
    over(world, asked(story))
    story.refresh_from_db()
    assert story.stage == "coding" and gates.owed(story)
    Story.objects.filter(pk=story.pk).update(frozen=False)
    world.until_stage(story, "done")


@pytest.mark.needs_bubblewrap
def test_a_gate_sees_neither_the_servers_folder_nor_another_copy(world: World) -> None:
    (world.folder / "data" / "secret.key").write_text("hunter2")
    project = with_gate(
        world, f"cat {world.folder}/data/secret.key 2>&1; ls {world.folder}/data/copies | wc -l; exit 1"
    )
    (world.folder / "data" / "copies" / "another").mkdir(parents=True)
    run = over(world, asked(world.work(project, {"a": "a\n"})))
    assert "hunter2" not in run.output and run.output.endswith("1")


def test_no_level_of_confinement_and_nobodys_leave_is_an_error_with_the_remedy(
    world: World, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.processes import confine

    project = with_gate(world, "sh check.sh")
    settings.HUSKIES_UNCONFINED = False
    monkeypatch.setattr(
        confine, "level_available", lambda: confine.Level("none", "bubblewrap is not installed.")
    )
    story = world.work(project, {"a": "a\n"})
    run = asked(story)
    story.refresh_from_db()
    assert run.verdict == "errored" and "bubblewrap is not installed" in run.reason and run.process is None


def test_moving_on_by_hand_while_the_gate_runs_is_not_undone_by_its_verdict(world: World) -> None:
    story = world.work(with_gate(world, "sh check.sh"), {"a": "a\n"})
    asked(story)
    with transaction.atomic():
        moves.move(story, "archive", actor=ALICE)
    world.server.idle()
    story.refresh_from_db()
    assert story.stage == "archived"
    assert conf.control_path(story.project.key).exists()


def test_a_gate_that_changes_files_changes_nothing_that_lands(world: World) -> None:
    spoil = "echo spoiled > feature.txt\necho more > extra.txt\ngit rm -q README.md\ngit -c user.name=a -c user.email=a@b commit -qam spoiled\n"
    project = world.add(world.repository({**FILES, "check.sh": spoil}))
    story = world.work(project, {"feature.txt": "new\n"})
    run = over(world, asked(story))
    assert (run.verdict, run.commit) == ("passed", story.tip)
    world.until_stage(story, "done")
    control = str(conf.control_path(project.key))
    landed = git("--git-dir", control, "ls-tree", "-r", "--name-only", story.landed, cwd=world.folder)
    assert landed.split() == [".huskies/project.yaml", "README.md", "check.sh", "feature.txt"]
    assert git("--git-dir", control, "show", f"{story.landed}:feature.txt", cwd=world.folder).strip() == "new"
