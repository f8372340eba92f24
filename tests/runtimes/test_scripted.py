"""The scripted runtime, with its real program."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.runtimes import RUNTIMES, UnknownRuntime, get_runtime
from agents.runtimes.base import Event, Launch, LaunchRefused, Outcome
from agents.runtimes.scripted import Scripted, ScriptError, find_script, parse_script
from tests.runtimes.conftest import MakeLaunch, run
from tests.runtimes.records import STDERR, STDOUT, Record, bodies, ended, fed

RUNTIME = Scripted()


def play(launch: Launch, files: list[Any] | None = None) -> tuple[list[Event], Outcome]:
    command = RUNTIME.command(launch)
    command.files.extend(files or [])
    done = run(launch, command)
    parser = RUNTIME.parser()
    events = fed(parser, [Record(STDOUT, raw) for raw in done.stdout.split(b"\n")])
    events += fed(parser, [Record(STDERR, raw) for raw in done.stderr.splitlines()])
    code = done.returncode
    return events, parser.outcome(ended(code if code >= 0 else None, signal=-code if code < 0 else None))


def steps(*given: Any) -> dict[str, Any]:
    return {"script": list(given)}


def test_it_works_on_a_story_like_a_coder(make_launch: MakeLaunch) -> None:
    launch = make_launch(
        agent_config=steps(
            {"say": "I begin."},
            {"write": {"path": "src/a.txt", "content": "one\n"}},
            {"append": {"path": "src/a.txt", "content": "two\n"}},
            {"run": "wc -l src/a.txt; exit 3"},
            {"commit": "Add a file"},
            {"usage": {"input": 1000, "output": 10, "model": "claude-sonnet-5-5"}},
        )
    )
    events, outcome = play(launch)
    assert outcome.kind == "done"
    assert "not an AI" in bodies(events, "started")[0]["label"]
    tools = bodies(events, "tool_end")
    assert [body["error"] for body in tools] == [False, False, True, False]
    assert tools[2]["text"] == "2 src/a.txt\n"
    assert float(bodies(events, "usage")[0]["cost_usd"]) == 0.0021
    log = subprocess.run(
        ["git", "show", "--stat", "--format=%an: %s"], cwd=launch.copy, capture_output=True, text=True
    )
    assert log.stdout.startswith("huskies coder-1: Add a file")
    assert "src/a.txt" in log.stdout


def test_a_later_session_plays_the_next_turn(make_launch: MakeLaunch) -> None:
    """As a real program does after a red gate; the last turn again when there are no more."""
    script = {"turns": [[{"say": "first"}], [{"say": "second"}]]}
    launch, said = make_launch("s0", agent_config={"script": script}), []
    files: list[Any] = []
    for number in range(1, 4):
        events, _ = play(launch, files)
        said.append(bodies(events, "text")[0]["text"])
        following = make_launch(
            f"s{number}", agent_config={"script": script}, conversation=launch.conversation
        )
        files = RUNTIME.carry(launch.config, following)
        launch = following
    assert said == ["first", "second", "second"]


def test_a_turn_that_crashed_counts(make_launch: MakeLaunch) -> None:
    launch = make_launch(agent_config={"script": {"turns": [[{"crash": "SIGKILL"}], [{"say": "again"}]]}})
    _, outcome = play(launch)
    assert (outcome.kind, "SIGKILL" in outcome.reason) == ("crashed", True)
    assert bodies(play(launch)[0], "text")[0]["text"] == "again"


def test_a_memory_that_is_a_link_is_not_carried(make_launch: MakeLaunch, tmp_path: Path) -> None:
    launch = make_launch(agent_config=steps({"say": "x"}))
    play(launch)
    memory = next((launch.config / "scripted").iterdir())
    assert RUNTIME.carry(launch.config, launch) != []
    memory.rename(tmp_path / "secret")
    memory.symlink_to(tmp_path / "secret")
    assert RUNTIME.carry(launch.config, launch) == []


def test_the_script_may_stand_in_the_story(make_launch: MakeLaunch) -> None:
    text = "Please do it.\n\n```script\n- say: from the story\n```\nThanks."
    assert find_script(text) == "- say: from the story\n"
    assert bodies(play(make_launch(story_text=text))[0], "text")[0]["text"] == "from the story"
    with pytest.raises(LaunchRefused, match="has no script"):
        RUNTIME.command(make_launch(story_text="No block."))


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ({"end": {"outcome": "rate_limited", "text": "try later", "until": 1795556895}}, "rate_limited"),
        ({"end": {"outcome": "auth"}}, "auth"),
        ({"exit": 4}, "crashed"),
        ({"exit": 0}, "crashed"),
        ({"crash": "SIGSEGV"}, "crashed"),
        ({"wait_for": {"file": "never", "timeout": 0}}, "crashed"),
        ({"append": {"path": "/proc/nothing", "content": "x"}}, "crashed"),
    ],
)
def test_it_can_end_in_every_way(make_launch: MakeLaunch, step: dict[str, Any], kind: str) -> None:
    _, outcome = play(make_launch(agent_config=steps(step)))
    assert outcome.kind == kind
    assert kind != "rate_limited" or outcome.until == 1795556895


def test_it_prints_anything(make_launch: MakeLaunch) -> None:
    events, outcome = play(
        make_launch(
            agent_config=steps(
                "bad_bytes",
                {"print_bytes": {"n": 100_000, "line": 50_000}},
                {"print_bytes": {"n": 10, "char": "e", "stream": "stderr"}},
                {"print": ""},
                {"huge_line": 40_000},
                {"huge_line": 2_000_000},
            )
        )
    )
    assert outcome.kind == "done"
    texts = [body["text"] for body in bodies(events, "output")]
    assert "e" * 10 in texts
    assert sum(text.startswith("x" * 100) for text in texts) == 2
    assert [body.get("cut") for body in bodies(events, "text")] == [40_000 - 16_384]


@contextmanager
def running(launch: Launch) -> Iterator[subprocess.Popen[bytes]]:
    """The program, started as a group of its own that is killed in the end."""
    command = RUNTIME.command(launch)
    program = subprocess.Popen(
        command.argv,
        env=command.env,
        cwd=launch.copy,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert program.stdin is not None
    program.stdin.write(command.stdin.encode())
    program.stdin.close()
    try:
        yield program
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


def next_event(program: subprocess.Popen[bytes], kind: str) -> dict[str, Any]:
    assert program.stdout is not None
    parser = RUNTIME.parser()
    for raw in program.stdout:
        for event in parser.feed(Record(STDOUT, raw.rstrip(b"\n"))):
            if event.kind == kind:
                return event.body
    pytest.fail(f"the program ended without the event {kind}")


def test_it_can_hang_and_ignore_a_polite_stop(make_launch: MakeLaunch) -> None:
    with running(make_launch(agent_config=steps("ignore_term", {"say": "deaf"}, "hang"))) as program:
        assert next_event(program, "text")["text"] == "deaf"
        program.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(timeout=0.3)


def test_it_leaves_daemons_that_hold_its_output(make_launch: MakeLaunch) -> None:
    launch = make_launch(agent_config=steps("daemon", "hold_stdout"))
    with running(launch) as program:
        daemon = next_event(program, "note")["pid"]
        holder = next_event(program, "note")["pid"]
        try:
            assert program.wait(timeout=30) == 0
            assert os.getsid(daemon) == daemon
            assert str(Path(f"/proc/{daemon}/fd/1").readlink()) == os.devnull
            assert str(Path(f"/proc/{holder}/fd/1").readlink()).startswith("pipe:")
        finally:
            for pid in (daemon, holder):
                os.kill(pid, signal.SIGKILL)


def test_it_waits_for_a_file(make_launch: MakeLaunch) -> None:
    launch = make_launch(
        agent_config=steps({"say": "waiting"}, {"wait_for": {"file": "go"}}, {"think": "went"})
    )
    with running(launch) as program:
        next_event(program, "text")
        (launch.copy / "go").touch()
        assert next_event(program, "thinking")["text"] == "went"


@pytest.mark.needs_bubblewrap
def test_it_runs_confined(make_launch: MakeLaunch) -> None:
    launch = make_launch(
        level="bubblewrap", agent_config=steps({"run": "echo x > /usr/x"}, {"commit": "Nothing"})
    )
    events, outcome = play(launch)
    assert (outcome.kind, bodies(events, "tool_end")[0]["error"]) == ("done", True)


@pytest.mark.parametrize(
    "bad",
    [
        "say: hello",
        "[",
        "- dance: 1",
        "- {say: a, think: b}",
        "- say: 5",
        "- crash: SIGNOTHING",
        "- exit: 256",
        "- write: {path: a}",
        "- end: {outcome: splendid}",
        {"turns": []},
        {"turns": [{"say": "x"}]},
        {"turns": [[]], "more": 1},
        "- say: " + "x" * 70_000,
        5,
        "!!python/object/apply:os.system [ls]",
    ],
)
def test_a_script_that_cannot_be_played_is_refused_with_a_sentence(bad: object) -> None:
    with pytest.raises(ScriptError, match=r"\.$"):
        parse_script(bad)


@given(text=st.text(max_size=200))
def test_any_text_is_a_script_or_refused(text: str) -> None:
    try:
        parse_script(text)
    except ScriptError:
        pass


def test_runtimes_are_found_by_name() -> None:
    assert {"claude-code", "command", "scripted"} < set(RUNTIMES)
    assert get_runtime("scripted").label == "a scripted stand-in, not an AI"
    with pytest.raises(UnknownRuntime, match=r"There are: acp, .*claude-code, .*scripted"):
        get_runtime("clippy")
