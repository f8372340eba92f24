"""The stand-in over its wire protocol, with the standard library alone."""

import http.client
import json
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from agents.standin import ScriptError, StandIn

SHELL = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "tools": [{"name": "Bash", "input_schema": SHELL}],
}
BROKEN = (http.client.HTTPException, ConnectionError, urllib.error.URLError)


def ask(fake: StandIn, *, scenario: str | None = None, key: str = "", **more: Any) -> tuple[int, Any, bytes]:
    request = urllib.request.Request(
        fake.url(scenario) + "/v1/messages",
        json.dumps(BODY | more).encode(),
        {"content-type": "application/json", "x-api-key": key},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def streamed(fake: StandIn, **more: Any) -> list[dict[str, Any]]:
    lines = ask(fake, stream=True, **more)[2].decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_text_is_streamed_in_pieces() -> None:
    text = 'Long enough for several pieces, with ünïcode and "quotes".'
    with StandIn([text]) as fake:
        deltas = [event["delta"] for event in streamed(fake) if event["type"] == "content_block_delta"]
    assert "".join(delta["text"] for delta in deltas) == text
    assert len(deltas) > 2


def test_run_becomes_a_call_of_the_clients_shell_and_usage_is_as_scripted() -> None:
    with StandIn([{"run": "echo hi", "usage": {"input": 321, "output": 45}}]) as fake:
        whole = json.loads(ask(fake)[2])
    assert [(one["name"], one["input"]) for one in whole["content"]] == [("Bash", {"command": "echo hi"})]
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (321, 45)


@pytest.mark.parametrize(("status", "kind"), [(401, "authentication_error"), (529, "overloaded_error")])
def test_errors_are_worded_as_the_provider_does(status: int, kind: str) -> None:
    with StandIn([{"error": {"status": status, "retry_after": 3}}]) as fake:
        code, headers, raw = ask(fake, stream=True)
    assert (code, headers["retry-after"], json.loads(raw)["error"]["type"]) == (status, "3", kind)


def test_a_stream_can_fail_be_garbled_and_break() -> None:
    turns = [{"text": "x", "stream_error": {}}, {"text": "x", "malformed": True}, {"text": "x", "drop": True}]
    with StandIn(turns) as fake:
        assert streamed(fake)[-1]["error"]["type"] == "overloaded_error"
        assert b"{not json" in ask(fake, stream=True)[2]
        with pytest.raises(BROKEN):
            ask(fake, stream=True)


def test_a_hanging_answer_ends_with_the_server() -> None:
    def expect_a_break() -> None:
        with pytest.raises(BROKEN):
            ask(fake)

    with StandIn([{"hang": 600}]) as fake:
        thread = threading.Thread(target=expect_a_break)
        thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive()


def test_a_request_without_tools_does_not_use_up_the_script() -> None:
    with StandIn(["main"]) as fake:
        assert json.loads(ask(fake, tools=[])[2])["content"][0]["text"] == "ok"
        assert (fake.left(), [one["kind"] for one in fake.requests()]) == (1, ["side"])


def test_scenarios_are_separate_and_a_turn_waits_for_its_match() -> None:
    script = {"scenarios": {"a": ["one"], "b": [{"text": "late", "match": "bye"}, "two"]}}
    with StandIn(script) as fake:
        assert json.loads(ask(fake, scenario="b")[2])["content"][0]["text"] == "two"
        bye = [{"role": "user", "content": "bye"}]
        assert json.loads(ask(fake, scenario="b", messages=bye)[2])["content"][0]["text"] == "late"
        assert (fake.left("a"), ask(fake, scenario="nobody")[0]) == (1, 404)


def test_keys_are_checked_masked_and_a_turn_that_cannot_be_played_is_noted() -> None:
    script = {"turns": [{"write": {"path": "a", "content": "x"}}], "api_key": "k", "on_end": "error"}
    with StandIn(script) as fake:
        assert ask(fake, key="wrong")[0] == 401
        assert ask(fake, key="k")[0] == 400  # no tool to write with was offered
        assert "no Write tool" in fake.problems[0]
        assert ask(fake, key="k")[0] == 400  # the script has ended
        assert {one["headers"]["x-api-key"] for one in fake.requests()} == {"(set)"}


@pytest.mark.parametrize("bad", [5, [{"txt": "x"}], {"turns": [], "nope": 1}, [3], [{"calls": [{"no": 1}]}]])
def test_bad_scripts_are_refused(bad: object) -> None:
    with pytest.raises(ScriptError):
        StandIn(bad)
