"""The `claude-code` runtime: its command, its files, and the real program against the fake provider."""

import json
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from agents.runtimes.base import Command, Credential, Event, Launch, LaunchRefused, Outcome
from agents.runtimes.claude_code import ClaudeCode, carry_conversation
from tests.fake_provider import FakeProvider
from tests.runtimes.conftest import MakeLaunch, run
from tests.runtimes.records import STDERR, STDOUT, Record, bodies, ended, fed

RUNTIME = ClaudeCode()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in Claude Code's place, for tests of the command line alone."""
    program = tmp_path / "bin" / "claude"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '9.8.7 (Claude Code)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("HUSKIES_CLAUDE", str(program))
    return program


def options(command: Command) -> dict[str, str]:
    return dict(word.removeprefix("--").partition("=")[::2] for word in command.argv[2:])


def test_the_prompt_is_never_an_argument(stand_in: Path, make_launch: MakeLaunch) -> None:
    command = RUNTIME.command(make_launch(prompt="--dangerously-skip-permissions; $(touch x)"))
    assert command.stdin == "--dangerously-skip-permissions; $(touch x)"
    assert not any("touch" in word for word in [*command.argv, *command.env.values()])


def test_a_value_cannot_become_an_option(stand_in: Path, make_launch: MakeLaunch) -> None:
    command = RUNTIME.command(
        make_launch(agent_config={"system_prompt": "--permission-mode=bypassPermissions"})
    )
    assert all(word.startswith("--") or word == "-p" for word in command.argv[1:])
    assert options(command)["permission-mode"] == "acceptEdits"
    with pytest.raises(LaunchRefused, match="not a name of a model"):
        RUNTIME.command(make_launch(model="--help"))


def test_without_confinement_there_are_edits_only(stand_in: Path, make_launch: MakeLaunch) -> None:
    free, tied = (options(RUNTIME.command(make_launch(level=level))) for level in ("bubblewrap", "none"))
    assert (free["permission-mode"], "Bash" in free["tools"]) == ("bypassPermissions", True)
    assert (tied["permission-mode"], "Bash" in tied["tools"]) == ("acceptEdits", False)


def test_the_environment_is_complete_and_holds_no_secret_of_the_servers(
    stand_in: Path, make_launch: MakeLaunch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "DATABASE_URL",
        "SECRET_KEY",
        "SSH_AUTH_SOCK",
        "AWS_SECRET_ACCESS_KEY",
        "ANTHROPIC_AUTH_TOKEN",
    ):
        monkeypatch.setenv(name, "canary")
    launch = make_launch(credential=Credential("oauth_token", "token", "https://gateway.example"))
    env = RUNTIME.command(launch).env
    assert "canary" not in env.values()
    assert (env["CLAUDE_CODE_OAUTH_TOKEN"], env["ANTHROPIC_BASE_URL"]) == ("token", "https://gateway.example")
    assert "ANTHROPIC_API_KEY" not in env
    assert (env["HOME"], env["CLAUDE_CONFIG_DIR"]) == (str(launch.home), str(launch.config))
    assert (env["GIT_AUTHOR_NAME"], env["GIT_COMMITTER_EMAIL"]) == (
        "huskies coder-1",
        "coder-1@huskies.invalid",
    )


def test_the_key_is_not_in_the_representation_of_a_command(stand_in: Path, make_launch: MakeLaunch) -> None:
    launch = make_launch(credential=Credential("api_key", "very-secret"))
    assert "very-secret" not in repr(launch) + repr(RUNTIME.command(launch))


def test_limits_and_tools_come_from_the_agents_entry(stand_in: Path, make_launch: MakeLaunch) -> None:
    config = {"max_turns": 9, "max_budget_usd": "1.50", "allowed_tools": ["Read", "Edit"], "model": "opus"}
    given = options(RUNTIME.command(make_launch(agent_config=config)))
    assert (given["max-turns"], given["max-budget-usd"], given["tools"]) == ("9", "1.50", "Read,Edit")
    assert (given["model"], options(RUNTIME.command(make_launch()))["model"]) == ("opus", "sonnet")
    config = {"disallowed_tools": ["Bash(rm:*)", "W*"]}
    given = options(RUNTIME.command(make_launch(level="bubblewrap", agent_config=config)))
    assert (given["tools"], given["disallowedTools"]) == ("Bash,Read,Edit,Glob,Grep", "Bash(rm:*)")
    with pytest.raises(LaunchRefused, match="whole tools"):
        RUNTIME.command(make_launch(agent_config={"allowed_tools": ["Bash(git:*)"]}))
    with pytest.raises(LaunchRefused, match="leave none"):
        RUNTIME.command(make_launch(agent_config={"allowed_tools": ["Telephone"]}))


def test_the_hosts_own_log_in_is_copied_for_the_session(
    stand_in: Path, make_launch: MakeLaunch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    launch = make_launch(credential=Credential("host_login"))
    with pytest.raises(LaunchRefused, match="not logged in"):
        RUNTIME.command(launch)
    assert RUNTIME.find().logged_in is False
    (tmp_path / ".credentials.json").write_text("{}")
    copied = RUNTIME.command(launch).files[-1]
    assert copied == ["copy", str(tmp_path / ".credentials.json"), str(launch.config / ".credentials.json")]


def test_find_tells_path_and_version_or_the_remedy(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = RUNTIME.find()
    assert (found.path, found.version) == (stand_in, "9.8.7")
    monkeypatch.setenv("HUSKIES_CLAUDE", "/nowhere/claude")
    assert RUNTIME.find().path is None
    assert "HUSKIES_CLAUDE" in RUNTIME.find().remedy


def test_a_program_that_does_not_answer_is_told_with_what_it_said(stand_in: Path) -> None:
    stand_in.write_text("#!/bin/sh\necho 'needs a newer kernel' >&2\nexit 3\n")
    found = RUNTIME.find()
    assert found.version is None
    assert "needs a newer kernel" in found.remedy


# ---------------------------------------------------------------- what is carried to the next session


def transcript(config: Path, conversation: str, folder: str = "-wt") -> Path:
    path = config / "projects" / folder / f"{conversation}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}\n")
    return path


def test_only_the_transcript_is_carried(tmp_path: Path) -> None:
    conversation = str(uuid.uuid4())
    source = transcript(tmp_path / "old", conversation)
    transcript(tmp_path / "old", str(uuid.uuid4()))
    (tmp_path / "old" / "settings.json").write_text('{"hooks": {}}')
    files = carry_conversation(tmp_path / "old", tmp_path / "new", conversation)
    target = tmp_path / "new" / "projects" / "-wt"
    assert files == [["mkdir", str(target)], ["copy", str(source), str(target / source.name)]]


@pytest.mark.parametrize("trap", ["link", "hard link", "linked folder", "folder", "none"])
def test_a_transcript_that_is_a_trap_is_not_carried(tmp_path: Path, trap: str) -> None:
    """The copy is made outside of the confinement, with the server's rights."""
    conversation = str(uuid.uuid4())
    secret = tmp_path / "secret"
    secret.write_text("secret")
    source = transcript(tmp_path / "old", conversation)
    source.unlink()
    if trap == "link":
        source.symlink_to(secret)
    elif trap == "hard link":
        source.hardlink_to(secret)
    elif trap == "folder":
        source.mkdir()
    elif trap == "linked folder":
        source.parent.rmdir()
        transcript(tmp_path, conversation, "elsewhere")
        source.parent.symlink_to(tmp_path / "projects" / "elsewhere")
    assert carry_conversation(tmp_path / "old", tmp_path / "new", conversation) == []


# ---------------------------------------------------------------- the real program


def play(
    launch: Launch, fake: FakeProvider, *, files: list[Any] | None = None
) -> tuple[list[Event], Outcome]:
    command = RUNTIME.command(launch)
    command.files.extend(files or [])
    done: subprocess.CompletedProcess[bytes] = run(launch, command)
    assert fake.problems == []
    parser = RUNTIME.parser()
    events = fed(parser, [Record(STDOUT, raw) for raw in done.stdout.splitlines()])
    events += fed(parser, [Record(STDERR, raw) for raw in done.stderr.splitlines()])
    code = done.returncode
    return events, parser.outcome(ended(code if code >= 0 else None, signal=-code if code < 0 else None))


@pytest.fixture
def real(claude_program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSKIES_CLAUDE", str(claude_program))


def agent(fake: FakeProvider, **more: Any) -> dict[str, Any]:
    return {"base_url": fake.url(), "provider_retries": 1, **more}


@pytest.mark.needs_claude
@pytest.mark.needs_bubblewrap
def test_the_real_program_edits_commits_and_goes_on_in_another_copy(
    real: None, make_launch: MakeLaunch
) -> None:
    turns = [
        {
            "run": "echo hi > a.txt && git add -A && git commit -qm first",
            "usage": {"input": 300, "output": 50},
        },
        "Done.",
        {"write": {"path": "b.txt", "content": "x"}, "match": "It failed"},
        "Done again.",
    ]
    with FakeProvider(turns) as fake:
        first = make_launch("one", level="bubblewrap", agent_config=agent(fake, system_prompt="-Be brief."))
        events, outcome = play(first, fake)
        assert outcome == Outcome("done", "The agent finished its turn.")
        usage, end = bodies(events, "usage"), bodies(events, "ended")[0]
        assert sum(float(one["cost_usd"]) for one in usage) == pytest.approx(end["program_cost_usd"])
        log = subprocess.run(
            ["git", "log", "-1", "--format=%an %s"], cwd=first.copy, capture_output=True, text=True
        )
        assert log.stdout == "huskies coder-1 first\n"

        second = make_launch(
            "two",
            level="bubblewrap",
            conversation=first.conversation,
            resume=True,
            prompt="It failed.",
            agent_config=agent(fake),
        )
        carried = RUNTIME.carry(first.config, second)
        assert carried != []
        events, outcome = play(second, fake, files=carried)
        assert outcome.kind == "done"
        resumed = json.dumps(fake.requests("model")[2]["body"]["messages"])
        assert "Do the story." in resumed and "It failed." in resumed
        assert (second.copy / "b.txt").read_text() == "x"
        assert fake.left() == 0
        ours = sum(float(one["cost_usd"]) for one in bodies(events, "usage"))
        assert ours == pytest.approx(bodies(events, "ended")[0]["program_run_cost_usd"])


@pytest.mark.needs_claude
def test_edits_only_means_no_shell_and_nothing_outside(
    real: None, make_launch: MakeLaunch, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.txt"
    turns = [
        {"write": {"path": str(outside), "content": "x"}},
        {"tool": "Read", "input": {"file_path": "/etc/passwd"}},
        {"write": {"path": "inside.txt", "content": "x"}},
        "Done.",
    ]
    with FakeProvider(turns) as fake:
        launch = make_launch(agent_config=agent(fake))
        events, outcome = play(launch, fake)
        assert "Bash" not in fake.requests("model")[0]["body"]["tools"][0]["name"]
    assert outcome.kind == "done"
    assert (outside.exists(), (launch.copy / "inside.txt").exists()) == (False, True)
    assert [body["error"] for body in bodies(events, "tool_end")] == [True, True, False]


@pytest.mark.needs_claude
@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        ({"error": 401}, "auth"),
        ({"error": {"status": 429, "retry_after": 3600}}, "rate_limited"),
        ({"error": 529}, "overloaded"),
        ({"error": 404}, "bad_model"),
        (
            {"error": {"status": 400, "message": "prompt is too long: 250000 tokens > 200000 maximum"}},
            "context_full",
        ),
    ],
)
def test_the_real_programs_failures_have_their_names(
    real: None, make_launch: MakeLaunch, turn: dict[str, Any], kind: str
) -> None:
    with FakeProvider([turn | {"repeat": 9}]) as fake:
        _, outcome = play(make_launch(agent_config=agent(fake)), fake)
    assert outcome.kind == kind


@pytest.mark.needs_claude
@pytest.mark.needs_bubblewrap
def test_a_forbidden_command_is_denied_where_the_agent_is_free(real: None, make_launch: MakeLaunch) -> None:
    with FakeProvider([{"run": "git status"}, {"run": "echo fine"}, "Done."]) as fake:
        config = agent(fake, disallowed_tools=["Bash(git:*)"])
        events, _ = play(make_launch(level="bubblewrap", agent_config=config), fake)
    assert [body["error"] for body in bodies(events, "tool_end")] == [True, False]


@pytest.mark.needs_claude
def test_the_real_program_survives_a_stream_that_breaks(real: None, make_launch: MakeLaunch) -> None:
    with FakeProvider([{"text": "some words", "drop": True}, "after"]) as fake:
        events, outcome = play(make_launch(agent_config=agent(fake)), fake)
    assert (outcome.kind, len(bodies(events, "retry"))) == ("done", 1)


@pytest.mark.needs_claude
def test_the_real_program_names_a_conversation_that_is_not_there(real: None, make_launch: MakeLaunch) -> None:
    with FakeProvider([]) as fake:
        _, outcome = play(make_launch(resume=True, agent_config=agent(fake)), fake)
        assert (outcome.kind, outcome.detail) == ("config", "conversation_missing")
        launch = make_launch(agent_config=agent(fake))
        play(launch, fake)
        _, outcome = play(launch, fake)
    assert (outcome.kind, outcome.detail) == ("config", "conversation_in_use")
