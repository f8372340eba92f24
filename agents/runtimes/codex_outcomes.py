"""What the last words of a failed Codex turn mean: they are prose (measured with 0.169.0)."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from .base import Outcome, OutcomeKind
from .refusals import kind_of_status, refused

# In this order: the first that is found decides. A refusal's status stands beside its words.
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


def judge(said: str) -> Outcome:
    """The outcome of a turn that failed with these words."""
    return refused(_kind(said), said, reset_time(said, time.time()))


def _kind(said: str) -> OutcomeKind:
    low = said.lower()
    for word, kind in WORDS:
        if word in low:
            return kind
    found = _STATUS.search(said)
    known = kind_of_status(int(found[1]) if found else 0)
    return known or ("config" if "invalid_request_error" in low else "crashed")


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
