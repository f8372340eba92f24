"""What the error of a failed Codex turn means: a word or a status where it has one, else its prose (measured with 0.169.0)."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from .base import Outcome, OutcomeKind
from .bounds import clip, mapping, number, text
from .refusals import conversation_missing, kind_of_status, refused

KINDS: dict[str, OutcomeKind] = {
    "contextWindowExceeded": "context_full",
    "sessionBudgetExceeded": "budget",
    "usageLimitExceeded": "rate_limited",
    "rateLimitExceeded": "rate_limited",
    "serverOverloaded": "overloaded",
    "flexUnavailable": "overloaded",
    "policyCapacityUnavailable": "overloaded",
    "internalServerError": "overloaded",
    "modelNotFound": "bad_model",
    "unauthorized": "auth",
    "badRequest": "config",
}
# In this order: the first that is found decides, and tells more than a word or a status of Codex's.
WORDS: tuple[tuple[str, OutcomeKind], ...] = (
    ("usage limit", "rate_limited"),
    ("quota exceeded", "billing"),
    ("insufficient_quota", "billing"),
    ("billing", "billing"),
    ("context window", "context_full"),
    ("context_length_exceeded", "context_full"),
    ("missing environment variable", "auth"),
    ("invalid_api_key", "auth"),
    ("model_not_found", "bad_model"),
    ("does not exist or you do not have access", "bad_model"),
    ("is not supported when using codex", "bad_model"),
    ("high demand", "overloaded"),
    ("overloaded", "overloaded"),
    ("stream disconnected", "overloaded"),
    ("waiting for network", "overloaded"),
    ("incomplete response", "crashed"),
)
_STATUS = re.compile(r"\b(?:status:?|http) (\d{3})\b", re.I)
_AGAIN = re.compile(
    r"try again at (?:(?P<month>[A-Z][a-z]{2}) (?P<day>\d{1,2})(?:st|nd|rd|th), (?P<year>\d{4}) )?"
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2}) (?P<half>[AP]M)"
)
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def judge(error: Mapping[str, Any], resets_at: int | None = None) -> Outcome:
    """The outcome of a turn that failed with this error; `resets_at`: when a limit of the account is over that was used up."""
    said = said_of(error)
    return refused(_kind(error, said), said, resets_at or reset_time(said, time.time()))


def said_of(error: Mapping[str, Any]) -> str:
    """Its message, and what it tries again for."""
    return " ".join(
        one for name in ("message", "additionalDetails") if (one := text(error.get(name)).strip())
    )


def status_of(error: Mapping[str, Any]) -> int | None:
    """The provider's status, where the error holds one."""
    for told in mapping(error.get("codexErrorInfo")).values():
        if status := number(mapping(told).get("httpStatusCode")):
            return status
    return None


def _kind(error: Mapping[str, Any], said: str) -> OutcomeKind:
    low = said.lower()
    for word, kind in WORDS:
        if word in low:
            return kind
    named = KINDS.get(text(error.get("codexErrorInfo")))
    found = _STATUS.search(said)
    status = status_of(error) or (int(found[1]) if found else 0)
    return named or kind_of_status(status) or ("config" if "invalid_request_error" in low else "crashed")


def judge_failure(failure: Mapping[str, Any], error: Mapping[str, Any], *, started: bool) -> Outcome | None:
    """The outcome of a conversation that failed: {"at": what was tried, "said", "code"}; `error`: what Codex complained of last.

    None for a program that did not begin: its exit and its stderr tell more.
    """
    at, said, code = text(failure.get("at")), text(failure.get("said")).strip(), failure.get("code")
    if at == "patience":
        known = judge(error)
        return Outcome(
            known.kind, f"It waited for the provider for {said} seconds. {known.reason}", known.until
        )
    if at == "exit":
        return Outcome("crashed", f"Codex {_how(code)} in the middle of the turn.") if started else None
    if at == "silent":
        return Outcome("config", f"Codex did not answer {clip(said, 200)[0]}.", detail="program")
    if at == "thread/resume" and (not said or "rollout" in said or "thread id" in said):
        return conversation_missing(said)
    known = judge({"message": said})
    if known.kind == "crashed" and not started:
        return Outcome("config", f"Codex refused {at or 'to begin'}: {clip(said, 500)[0]}", detail="program")
    return known


def _how(code: object) -> str:
    if not isinstance(code, int) or isinstance(code, bool):
        return "closed its output"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"ended by signal {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def reset_time(said: str, now: float) -> int | None:
    """Epoch seconds of "try again at 12:20 PM" (the next such time, in UTC: Codex runs with TZ=UTC) or of a whole date."""
    found = _AGAIN.search(said)
    if found is None:
        return None
    hour = int(found["hour"]) % 12 + (12 if found["half"] == "PM" else 0)
    try:
        if found["month"]:
            month = _MONTHS.index(found["month"]) + 1
            at = datetime(
                int(found["year"]), month, int(found["day"]), hour, int(found["minute"]), tzinfo=UTC
            )
            return int(at.timestamp())
        today = datetime.fromtimestamp(now, UTC)
        at = today.replace(hour=hour, minute=int(found["minute"]), second=0, microsecond=0)
    except ValueError:
        return None
    return int((at if at > today else at + timedelta(days=1)).timestamp())
