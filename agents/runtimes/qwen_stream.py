"""Reads the JSON lines of Qwen Code (measured with 0.24.4), and those that `followed` adds.

They are Claude Code's dialect, with other names of tools. What was used is read from its records: its own sums
count the whole conversation. What it says of a provider that refuses is prose, as text and as its result's error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from .base import Event, Outcome, OutcomeKind, Redact
from .bounds import clip, clipped, copied, line_of, mapping, number, text
from .claude_stream import ClaudeParser
from .ledger import Counts
from .refusals import conversation_missing, kind_of_status, refused

# Its tools by the names that Claude Code has for the like.
TOOLS = {
    "run_shell_command": "Bash",
    "write_file": "Write",
    "edit": "Edit",
    "read_file": "Read",
    "glob": "Glob",
    "grep_search": "Grep",
}
# In this order: the first that is found decides.
WORDS: tuple[tuple[str, OutcomeKind], ...] = (
    ("insufficient_quota", "billing"),
    ("quota exceeded", "billing"),
    ("exceeded your current quota", "billing"),
    ("insufficient balance", "billing"),
    ("context length", "context_full"),
    ("context_length_exceeded", "context_full"),
    ("connection error", "overloaded"),
    ("fetch failed", "overloaded"),
    ("terminated", "overloaded"),
    ("premature close", "overloaded"),
)
_STATUS = re.compile(r"API Error: (\d{3})\b|\bstatus:? (\d{3})\b")


class QwenParser(ClaudeParser):
    tools = TOOLS
    version_key = "qwen_code_version"

    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        super().__init__(state, redact)
        known = copied(state)
        self._refusal: dict[str, Any] = mapping(
            known.get("refusal")
        )  # the last one that it tries to get over
        self._gave_up = bool(known.get("gave_up", False))

    def state(self) -> dict[str, Any]:
        return super().state() | {"refusal": copied(self._refusal), "gave_up": self._gave_up}

    def _message(self, message: dict[str, Any]) -> list[Event]:
        kind = text(message.get("type"))
        if kind == "huskies.begin":
            return []
        if kind == "huskies.usage":
            self._refusal = {}
            request, model = text(message.get("request")), text(message.get("model")) or self._model
            if not request or self._ledger.has_seen(request):
                return []
            return self._ledger.start("", request, model, _counts(mapping(message.get("usage"))))
        if kind == "huskies.retry":
            status, said = number(message.get("status")) or None, text(message.get("error"))
            self._refusal = {"status": status, "said": clip(said, 2000)[0]}
            body = {"attempt": 0, "most": 0, "delay_ms": 0, "status": status, "error": line_of(said)}
            return [Event("retry", body)]
        if kind == "huskies.gave_up":
            self._gave_up = True
            said = f"It waited for the provider for {number(message.get('seconds'))} seconds."
            return [Event("ended", {"error": True, **clipped(f"{said} {text(self._refusal.get('said'))}")})]
        return super()._message(message)

    def _assistant(self, message: dict[str, Any]) -> list[Event]:
        """Without its counts, which leave out those of other models, and are told twice where a block is."""
        inner = {key: value for key, value in mapping(message.get("message")).items() if key != "usage"}
        return super()._assistant(message | {"message": inner})

    def _ended(self, message: dict[str, Any]) -> list[Event]:
        said = text(mapping(message.get("error")).get("message"))
        plain = {key: value for key, value in message.items() if key not in ("usage", "error")}
        return super()._ended(plain | ({"errors": [said]} if said else {}))

    def _judged(self) -> Outcome | Literal["success"] | None:
        if self._gave_up:
            return self._refused(text(self._refusal.get("said")), number(self._refusal.get("status")))
        if self._result is None:
            told = self._stderr.lower()
            if "reached max session turns" in told:
                return refused("turn_limit", "")
            return conversation_missing() if "no saved session found" in told else None
        if not self._result.get("is_error"):
            return "success"
        errors = self._result.get("errors")
        said = text(errors[0]) if isinstance(errors, list) and errors else text(self._result.get("result"))
        return self._refused(said, 0)

    def _refused(self, said: str, status: int) -> Outcome:
        low = said.lower()
        kind = next((kind for word, kind in WORDS if word in low), None)
        found = _STATUS.search(said)
        status = status or (int(found[1] or found[2]) if found else 0)
        return refused(kind or kind_of_status(status) or "crashed", said)


def _counts(usage: Mapping[str, Any]) -> Counts:
    """OpenAI's counts in ours: the input includes what came from the cache, the output what was thought."""
    read = number(usage.get("cached_content_token_count"))
    return {
        "input": max(0, number(usage.get("input_token_count")) - read),
        "output": number(usage.get("output_token_count")),
        "cache_read": read,
        "cache_write": 0,
        "cache_write_1h": 0,
        "thinking": number(usage.get("thoughts_token_count")),
    }
