"""What the components' setup started is torn down before a copy goes, and nothing there keeps the copy from going."""

import signal

import pytest

from pipeline import conf
from pipeline.git.control import list_refs
from pipeline.logevents import LogEvent
from pipeline.models import Event, Process
from pipeline.processes.identity import Identity, send_signal
from pipeline.services import gates
from tests.logs import events
from tests.pipeline.worlds import FILES, World

HEAD = "agents: []\ngate:\n  command: 'true'\ncomponents:\n"


pytestmark = pytest.mark.needs_bubblewrap


def judged(world: World, components: str) -> str:
    """A gate's run whose copy has these components; returns the key of the copy, when all is over."""
    project = world.add(
        world.repository({**FILES, "web/a.txt": "a\n", ".huskies/project.yaml": HEAD + components})
    )
    story = world.work(project, {"feature.txt": "new\n"})
    run = gates.request_gate(story, purpose="coding", commit=story.tip)
    world.server.idle()
    run.refresh_from_db()
    assert run.verdict == "passed" and run.process is not None
    return run.process.key


def said() -> list[str]:
    lines = [line.body for line in of_discards("line") if line.body["stream"] == "stdout"]
    return [line["text"] for line in lines if not line["text"].startswith(("Deleting", "{"))]


def of_discards(kind: str) -> list[LogEvent]:
    found = Process.objects.filter(kind="discard").order_by("pk")
    return [event for process in found for event in events(process, kind)]


def teardown_begun() -> bool:
    notes = [note.body for note in of_discards("note")]
    return any(note.get("note") == "started" and note["step"].startswith("teardown") for note in notes)


def assert_gone(key: str) -> None:
    assert not conf.copy_path(key).exists() and not list((conf.home() / "trash").iterdir())
    project = Process.objects.get(key=key).project
    assert project is not None
    assert not list_refs(conf.control_path(project.key), "refs/huskies/bases/")


def test_the_teardown_runs_in_the_components_folder_with_what_its_setup_left(world: World) -> None:
    components = "  - {name: web, path: web, setup: ['echo 17 > pid'], teardown: ['cat pid', 'ls a.txt']}\n"
    key = judged(world, components)
    assert said() == ["17", "a.txt"]
    assert_gone(key)


def test_a_teardown_that_fails_is_told_and_the_rest_goes_on(world: World) -> None:
    key = judged(
        world, "  - {name: web, teardown: ['exit 3', 'echo second']}\n  - {name: db, teardown: 'echo db'}\n"
    )
    assert said() == ["second", "db"]
    told = [row.text for row in Event.objects.filter(text__contains="teardown")]
    assert len(told) == 1 and "teardown of web, command 1 failed (exit code 3)" in told[0]
    assert_gone(key)


def test_a_teardown_that_hangs_is_stopped_at_its_time_out(world: World) -> None:
    key = judged(world, "  - {name: web, timeout: 1s, teardown: ['sleep 600', 'echo second']}\n")
    assert said() == ["second"]
    assert Event.objects.filter(text__contains="teardown of web, command 1 failed (timeout)").exists()
    assert_gone(key)


def test_a_teardown_sees_nothing_of_the_server(world: World) -> None:
    key = judged(world, f"  - {{name: web, teardown: ['ls {conf.home()}/runs || echo hidden']}}\n")
    assert said() == ["hidden"]
    assert_gone(key)


def test_a_runner_that_dies_in_the_teardown_does_not_keep_the_copy(world: World) -> None:
    project = world.add(
        world.repository({**FILES, ".huskies/project.yaml": HEAD + "  - {name: web, teardown: sleep 600}\n"})
    )
    story = world.work(project, {"feature.txt": "new\n"})
    run = gates.request_gate(story, purpose="coding", commit=story.tip)
    world.server.until(teardown_begun, what="the teardown", seconds=30)
    process = Process.objects.get(kind="discard")
    assert send_signal(Identity(process.pid or 0, process.start_time or 0, process.boot_id), signal.SIGKILL)
    world.server.idle()
    run.refresh_from_db()
    assert run.process is not None
    assert_gone(run.process.key)
