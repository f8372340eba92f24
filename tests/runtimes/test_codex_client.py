"""The client of the `codex` runtime with a program in the place of Codex: what is rare, and what Codex does not do."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.runtimes.codex import CLIENT

PROGRAM = Path(__file__).with_name("codex_program.py")
Line = dict[str, Any]


def notice(method: str, **params: Any) -> Line:
    return {"method": method, "params": {"threadId": "t1", **params}}


def talk(
    folder: Path, turns: list[list[Line]], reply: Callable[[Line], Line | None], **more: Any
) -> tuple[int, list[Line]]:
    """The client's exit code and lines. `reply` answers each; its stdin ends with a turn that nothing follows."""
    request = {"prompt": "Go.", "model": "m-1", "resume": False, "patience": 60, "provider_patience": 60}
    request |= {"ask": True, "permission_seconds": 60, **more}
    words = [sys.executable, "-I", "-S", str(CLIENT), sys.executable, "-I", str(PROGRAM)]
    lines: list[Line] = []
    with subprocess.Popen(
        [*words, json.dumps({"turns": turns})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"CODEX_HOME": str(folder / "home"), "PATH": os.environ["PATH"]},
        cwd=folder,
        text=True,
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        print(json.dumps(request), file=child.stdin, flush=True)
        for raw in child.stdout:
            lines.append(json.loads(raw))
            if (said := reply(lines[-1])) is not None:
                print(json.dumps(said), file=child.stdin, flush=True)
            elif lines[-1]["type"] == "turn_end":
                child.stdin.close()
    return child.returncode, lines


def told(folder: Path, method: str) -> list[Line]:
    lines = [json.loads(one) for one in (folder / "told.txt").read_text().splitlines()]
    return [one["params"] for one in lines if one.get("method") == method]


def prompts(folder: Path) -> list[str]:
    return [one["input"][0]["text"] for one in told(folder, "turn/start")]


def says(*texts: str) -> Callable[[Line], Line | None]:
    """One message after each update, until there are none."""
    left = list(texts)
    return lambda line: (
        {"type": "message", "text": left.pop(0)} if line["type"] == "update" and left else None
    )


WORKS = notice("item/started", item={"id": "c1", "type": "commandExecution", "command": "make"})
ECHO = notice("item/completed", item={"id": "u1", "type": "userMessage", "clientId": "message-1"})
SPEAKS = notice("item/started", item={"id": "a1", "type": "agentMessage", "text": ""})


def test_words_that_the_model_has_answered_are_said_once(tmp_path: Path) -> None:
    code, lines = talk(tmp_path, [[WORKS, {"await": "turn/steer"}, ECHO, SPEAKS]], says("Red."))
    assert (code, lines[-1]["type"], prompts(tmp_path)) == (0, "turn_end", ["Go."])
    (steered,) = told(tmp_path, "turn/steer")
    assert (steered["expectedTurnId"], steered["input"][0]["text"]) == ("turn-1", "Red.")


def test_words_that_no_model_has_heard_when_the_turn_ends_begin_another(tmp_path: Path) -> None:
    """Refused because the turn is over, or taken and written down after its last request."""
    for name, steps in (
        ("refused", [WORKS, {"await": "turn/steer", "refused": True}]),
        ("untaken", [WORKS, {"await": "turn/steer"}]),
        ("unanswered", [WORKS, {"await": "turn/steer"}, ECHO]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        code, lines = talk(folder, [steps, []], says("Red."))
        assert (code, prompts(folder)) == (0, ["Go.", "Red."]), name
        assert [line["type"] for line in lines if line["type"].startswith("turn_")] == [
            "turn_start", "turn_over", "turn_start", "turn_end",
        ]  # fmt: skip


def test_a_program_that_dies_in_the_middle_of_a_turn_is_told(tmp_path: Path) -> None:
    code, lines = talk(tmp_path, [[WORKS, {"exit": 3}]], lambda line: None)
    assert (code, lines[-1]) == (1, {"type": "failed", "at": "exit", "said": "", "code": 3})


def test_what_is_asked_is_answered_and_what_means_nothing_here_is_refused(tmp_path: Path) -> None:
    approval = "item/commandExecution/requestApproval"
    steps = [
        WORKS,
        {"id": 7, **notice("item/tool/requestUserInput", questions=[])},
        {"await": 7},
        {"id": 8, **notice(approval, itemId="c1", command="make")},
        {"await": 8},
        {"id": 9, **notice(approval, itemId="c1", command="make more")},
        notice("serverRequest/resolved", requestId=9),
        {"await": 9},
    ]

    def reply(line: Line) -> Line | None:
        asks = line["type"] == "permission" and line["request"]["command"] == "make"
        return {"type": "answer", "id": line["id"], "allow": True, "scope": "session"} if asks else None

    code, lines = talk(tmp_path, [steps], reply)
    assert code == 0
    answers = [json.loads(one) for one in (tmp_path / "told.txt").read_text().splitlines()]
    found = {one["id"]: one for one in answers if "method" not in one}
    assert found[7]["error"]["code"] == -32601
    assert [found[key]["result"] for key in (8, 9)] == [{"decision": "accept"}, {"decision": "cancel"}]
    over = [line for line in lines if line["type"] == "permission_over"]
    # One that is taken back at once is perhaps never told.
    assert [(one["allowed"], one["withdrawn"]) for one in over] in (
        [(True, False)],
        [(True, False), (False, True)],
    )


def test_a_record_that_is_a_trap_is_not_read_and_no_conversation_is_named(tmp_path: Path) -> None:
    sessions = tmp_path / "home/sessions"
    sessions.mkdir(parents=True)
    os.mkfifo(sessions / "pipe.jsonl")
    (sessions / "odd.jsonl").write_text(
        '"token_usage_record"\n{"type": "token_usage_record", "payload": 5}\n'
    )
    code, lines = talk(tmp_path, [[WORKS]], lambda line: None)
    assert (code, [line for line in lines if line["type"] == "usage"]) == (0, [])
    assert "cwd" not in told(tmp_path, "thread/start")[0]


def test_a_conversation_that_is_not_there_is_not_begun_anew(tmp_path: Path) -> None:
    code, lines = talk(tmp_path, [], lambda line: None, resume=True)
    assert (code, [(line["type"], line["at"]) for line in lines]) == (1, [("failed", "thread/resume")])
