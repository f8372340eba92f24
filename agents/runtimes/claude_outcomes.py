"""What a Claude Code run's own last words mean.

Judged by `is_error`, then by the provider's status: `subtype` says "success" for a refused key, and
`terminal_reason` differs between versions (measured with 2.1.197 and 2.1.330).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Outcome, OutcomeKind
from .bounds import mapping, number, text
from .refusals import conversation_missing, kind_of_status, refused

BY_ERROR: dict[str, OutcomeKind] = {
    "authentication_failed": "auth",
    "billing_error": "billing",
    "model_not_found": "bad_model",
    "rate_limit": "rate_limited",
    "overloaded": "overloaded",
    "server_error": "overloaded",
}
BY_SUBTYPE: dict[str, OutcomeKind] = {"error_max_turns": "turn_limit", "error_max_budget_usd": "budget"}


def judge(result: Mapping[str, Any], error: Mapping[str, Any], resets_at: int | None) -> Outcome | None:
    """The outcome of a run that reported a failure; None for one that reported success.

    `result` is the result event, `error` the last synthetic message about the provider's error (or
    empty), `resets_at` the time (epoch seconds) of a limit that was rejected.
    """
    if not result.get("is_error"):
        return None
    subtype, reason = text(result.get("subtype")), text(result.get("terminal_reason"))
    said = _said(result)
    if subtype in BY_SUBTYPE:
        return refused(BY_SUBTYPE[subtype], said)
    if reason.startswith("aborted"):
        return Outcome("stopped", "The agent was interrupted.", detail="interrupted")
    if "no conversation found" in said.lower():
        return conversation_missing(said)
    return refused(_kind(result, error, reason), said, resets_at)


def _kind(result: Mapping[str, Any], error: Mapping[str, Any], reason: str) -> OutcomeKind:
    word = text(error.get("error"))
    kinds = {text(source.get("api_error_type")) for source in (result, error)}
    status = number(result.get("api_error_status")) or number(error.get("api_error_status"))
    if reason == "prompt_too_long":
        return "context_full"
    # Before the status: a 400 says "credit balance is too low" only by this word.
    if "billing_error" in (word, *kinds):
        return "billing"
    if "overloaded_error" in kinds or "connection_failed" in (
        result.get("api_error"),
        error.get("api_error"),
    ):
        return "overloaded"
    known = kind_of_status(status)
    # A word tells more than a status that only says that the request was wrong.
    return BY_ERROR.get(word, known or "crashed") if known in (None, "config") else known


def _said(result: Mapping[str, Any]) -> str:
    errors = result.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else result.get("result")
    return text(first).strip()


def reset_time(error: Mapping[str, Any]) -> int | None:
    """When a rejected limit is free again (epoch seconds), from a synthetic error message."""
    info = mapping(mapping(error.get("api_error_params")).get("rate_limit_info"))
    return number(info.get("resetsAt")) or None
