"""The stand-in as OpenAI's Responses and as Gemini, over the wire, with the standard library alone."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from agents.standin import StandIn

SHELL = {"type": "object", "properties": {"cmd": {"type": "string"}}}
OPENAI = {
    "model": "m",
    "stream": True,
    "input": [{"type": "message", "role": "user", "content": "hi"}],
    "tools": [
        {"type": "function", "name": "exec_command", "parameters": SHELL},
        {"type": "custom", "name": "apply_patch"},
    ],
}
GEMINI = {
    "contents": [{"role": "user", "parts": [{"text": "- **Workspace Directories:**\n  - /wt\n"}]}],
    "tools": [{"functionDeclarations": [{"name": "run_shell_command"}, {"name": "write_file"}]}],
}
STREAM = "/v1beta/models/m:streamGenerateContent"


def ask(fake: StandIn, path: str, body: dict[str, Any], **headers: str) -> tuple[int, list[dict[str, Any]]]:
    """(status, the events of a stream, or the one answer)."""
    request = urllib.request.Request(fake.url() + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            lines = answer.read().decode().splitlines()
            return answer.status, [json.loads(one[6:]) for one in lines if one.startswith("data: ")]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, [json.loads(error.read())]


def test_responses_streams_text_and_counts_the_cached_tokens_as_input() -> None:
    turn = {"text": "some words that take pieces", "usage": {"input": 10, "cache_read": 5, "thinking": 2}}
    with StandIn([turn]) as fake:
        _, events = ask(fake, "/v1/responses", OPENAI)
    deltas = [one["delta"] for one in events if one["type"] == "response.output_text.delta"]
    assert "".join(deltas) == turn["text"] and len(deltas) > 1
    usage = events[-1]["response"]["usage"]
    assert (usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]) == (15, 5)
    assert [one["sequence_number"] for one in events] == list(range(1, len(events) + 1))


def test_responses_calls_the_clients_own_tools() -> None:
    with StandIn([{"run": "ls"}, {"write": {"path": "a.txt", "content": "x\n"}}]) as fake:
        shell, patch = (ask(fake, "/v1/responses", OPENAI)[1][-1]["response"]["output"][0] for _ in "12")
        assert (shell["name"], json.loads(shell["arguments"])) == ("exec_command", {"cmd": "ls"})
        assert patch["type"] == "custom_tool_call" and "*** Add File: a.txt\n+x\n" in patch["input"]
        space = {"type": "namespace", "name": "box", "tools": [{"type": "custom", "name": "exec"}]}
        fake.add_scenario("default", [{"run": "ls"}])
        newest = OPENAI | {"tools": [], "input": [{"type": "additional_tools", "tools": [space]}]}
        code = ask(fake, "/v1/responses", newest)[1][-1]["response"]["output"][0]
        assert (code["name"], code["namespace"]) == ("exec", "box") and '"ls"' in code["input"]


def test_gemini_streams_text_calls_tools_and_counts_thoughts_apart() -> None:
    turns = [
        {"text": "some words that take pieces", "usage": {"thinking": 7}},
        {"write": {"path": "a.txt", "content": "x"}},
        {"run": "ls"},
    ]
    with StandIn(turns) as fake:
        _, events = ask(fake, STREAM, GEMINI)
        parts = [part for one in events for part in one["candidates"][0]["content"]["parts"]]
        assert "".join(part["text"] for part in parts) == turns[0]["text"]
        assert events[-1]["usageMetadata"]["thoughtsTokenCount"] == 7
        calls = [ask(fake, STREAM, GEMINI)[1][0]["candidates"][0]["content"]["parts"][0] for _ in "12"]
    assert calls[0]["functionCall"] == {
        "name": "write_file",
        "args": {"file_path": "/wt/a.txt", "content": "x"},
    }
    assert calls[1]["functionCall"]["args"]["command"] == "ls"


@pytest.mark.parametrize(("path", "body"), [("/v1/responses", OPENAI), (STREAM, GEMINI)])
def test_errors_keys_and_side_requests_are_as_with_the_first(path: str, body: dict[str, Any]) -> None:
    turns = [{"error": {"status": 429, "retry_after": 3}}, {"error": {"status": 400, "body": {"own": 1}}}]
    with StandIn({"turns": turns, "api_key": "k"}) as fake:
        assert ask(fake, path, body)[0] == 401
        key = {"authorization": "Bearer k", "x-goog-api-key": "k"}
        assert ask(fake, path, body, **key)[0] == 429
        assert ask(fake, path, body, **key) == (400, [{"own": 1}])
        assert ask(fake, path, body | {"tools": []}, **key)[0] == 200
        assert [one["kind"] for one in fake.requests()] == ["other", "model", "model", "side"]
