"""What a failure of the Agent Client Protocol means (measured with Gemini CLI 0.61, codex-acp, claude-agent-acp, opencode 1.18, Qwen Code 0.24).

Programs agree on the form of an error and on nothing in it: the code may be the provider's status, the words are prose or raw JSON.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Mapping
from typing import Any

from .base import Outcome, OutcomeKind
from .bounds import clip, number, text
from .refusals import conversation_missing, it_said, kind_of_status, refused

LOGIN_NEEDED = -32000
STOPS: dict[str, OutcomeKind] = {
    "max_tokens": "context_full",
    "max_turn_requests": "turn_limit",
    "refusal": "crashed",
}
# In this order: the first that is found decides.
WORDS: tuple[tuple[str, OutcomeKind], ...] = (
    ("insufficient_quota", "billing"),
    ("billing", "billing"),
    ("credit balance", "billing"),
    ("usage limit", "rate_limited"),
    ("rate limit", "rate_limited"),
    ("rate_limit", "rate_limited"),
    ("quota", "rate_limited"),
    ("authentication required", "auth"),
    ("api key not valid", "auth"),
    ("invalid_api_key", "auth"),
    ("invalid api key", "auth"),
    ("context_length_exceeded", "context_full"),
    ("context window", "context_full"),
    ("maximum number of tokens", "context_full"),
    ("model_not_found", "bad_model"),
    ("is not found for api version", "bad_model"),
    ("overloaded", "overloaded"),
    ("fetch failed", "overloaded"),
    ("econnrefused", "overloaded"),
    ("econnreset", "overloaded"),
    ("stream disconnected", "overloaded"),
    ("premature close", "overloaded"),
    ("incomplete json segment", "overloaded"),
)
_STATUS = re.compile(r"(?:^|: |code|status|error|http)[a-z]*\"?[ :=]{0,2}\"?([45]\d\d)\b", re.I)
UNKNOWN = 500  # Gemini CLI's code for an error that it has no status of
_AGAIN = re.compile(r"(?:retry|try again) (?:after|in) (\d{1,7})(?:\.\d+)? ?(ms|s)\b", re.I)
BEFORE = "not_begun"  # detail of an end before the agent had its prompt
COMMAND = "Correct the agent's `command`, or see what it says in the session's output."


def judge_stop(stop: str) -> Outcome | None:
    """The outcome of a turn that ended by itself with this reason; None for a good end."""
    if stop == "cancelled":
        return Outcome("stopped", "The agent was interrupted.", detail="interrupted")
    if stop in STOPS:
        return refused(STOPS[stop], f"its turn ended with {stop}")
    return None


def judge(failure: Mapping[str, Any], started: bool) -> Outcome:
    """The outcome of a conversation that failed: {"at": what was tried, "said", "code"}."""
    at, said, code = text(failure.get("at")), text(failure.get("said")).strip(), failure.get("code")
    detail = "" if started else BEFORE
    if at == "start":
        return Outcome(
            "config",
            f"The agent's program could not be started: {clip(said, 500)[0]}. {COMMAND}",
            detail=BEFORE,
        )
    if at == "silent":
        why = f"The agent's program did not answer {clip(said, 200)[0]}: it may not speak the Agent Client Protocol. {COMMAND}"
        return Outcome("config", why, detail=BEFORE)
    if at == "version":
        why = f"The agent's program speaks version {clip(said, 100)[0]} of the Agent Client Protocol. Take a version of it that does."
        return Outcome("config", why, detail=BEFORE)
    if at == "mode":
        offered = f"it offers {clip(said, 500)[0]}" if said else "it offers none"
        return Outcome(
            "config",
            f"The agent's program has no such mode: {offered}. Correct the agent's `mode`.",
            detail=BEFORE,
        )
    if at == "exit":
        return _exited(code, started)
    kind = kind_of(said, code)
    if at in ("session/load", "session/resume") and kind in (None, "config", "bad_model"):
        return conversation_missing(said)
    if kind is None and at in ("session/set_model", "session/set_config_option"):
        kind = "bad_model"
    if kind is not None:
        again = _AGAIN.search(said) if kind == "rate_limited" else None
        seconds = int(again[1]) // (1000 if again[2].lower() == "ms" else 1) if again else 0
        known = refused(kind, said, int(time.time()) + seconds if again else None)
        return Outcome(known.kind, known.reason, known.until, detail if kind == "config" else "")
    if not started:
        return Outcome(
            "config",
            f"The agent's program refused {at or 'to begin'}.{it_said(said)} {COMMAND}",
            detail=BEFORE,
        )
    return refused("crashed", said)


def _exited(code: object, started: bool) -> Outcome:
    number_of = code if isinstance(code, int) and not isinstance(code, bool) else None
    how = "closed its output" if number_of is None else f"ended with exit code {number_of}"
    if number_of is not None and number_of < 0:
        try:
            how = f"ended by signal {signal.Signals(-number_of).name}"
        except ValueError:
            how = f"ended by signal {-number_of}"
    if started:
        return Outcome("crashed", f"The agent's program {how} in the middle of the conversation.")
    return Outcome("config", f"The agent's program {how} before it took a prompt. {COMMAND}", detail=BEFORE)


def kind_of(said: str, code: object) -> OutcomeKind | None:
    """The refusal that the words or the code of an error name; None if they name none."""
    low = said.lower()
    for word, kind in WORDS:
        if word in low:
            return kind
    found, own = _STATUS.search(said), number(code)
    status = int(found[1]) if found else 0
    if 400 <= own < 600 and (own != UNKNOWN or not status):
        status = own
    return kind_of_status(status) or ("auth" if code == LOGIN_NEEDED else None)
