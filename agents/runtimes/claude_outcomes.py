"""What a Claude Code run's own last words mean.

Judged by `is_error`, then by the provider's status: `subtype` says "success" for a refused key, and
`terminal_reason` differs between versions (measured with 2.1.197 and 2.1.330).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Outcome, OutcomeKind
from .bounds import clip, mapping, number, text

# The remedy that follows what the program said.
REMEDIES: dict[OutcomeKind, str] = {
    "auth": "The provider refused the log-in: check the agent's credential, then start the story again.",
    "billing": "The provider refused for lack of credit: settle it with the provider, then start again.",
    "bad_model": "The provider does not offer this account the model: change the agent's model.",
    "context_full": "The conversation is too long for the model: start the story in a new conversation.",
    "rate_limited": "The account's limit is reached; the story waits until it is free again.",
    "overloaded": "The provider is overloaded or cannot be reached; the story waits and is tried again.",
    "config": "The provider refused the request itself: check the agent's settings.",
    "crashed": "The program gave up with an error of its own.",
}
BY_ERROR: dict[str, OutcomeKind] = {
    "authentication_failed": "auth",
    "billing_error": "billing",
    "model_not_found": "bad_model",
    "rate_limit": "rate_limited",
    "overloaded": "overloaded",
    "server_error": "overloaded",
}
BY_STATUS: dict[int, OutcomeKind] = {
    401: "auth",
    402: "billing",
    403: "auth",
    404: "bad_model",
    408: "overloaded",
    413: "context_full",
    429: "rate_limited",
}


def judge(result: Mapping[str, Any], error: Mapping[str, Any], resets_at: int | None) -> Outcome | None:
    """The outcome of a run that reported a failure; None for one that reported success.

    `result` is the result event, `error` the last synthetic message about the provider's error (or
    empty), `resets_at` the time (epoch seconds) of a limit that was rejected.
    """
    if not result.get("is_error"):
        return None
    subtype, reason = text(result.get("subtype")), text(result.get("terminal_reason"))
    said = _said(result)
    if subtype == "error_max_turns":
        return Outcome(
            "turn_limit", f"The agent used all its turns. Raise max_turns, or split the story.{said}"
        )
    if subtype == "error_max_budget_usd":
        return Outcome(
            "budget", f"The agent used its budget. Raise max_budget_usd, or split the story.{said}"
        )
    if reason.startswith("aborted"):
        return Outcome("stopped", "The agent was interrupted.", detail="interrupted")
    if "no conversation found" in said.lower():
        return Outcome(
            "config",
            f"The conversation to go on with is not there: a new one is needed.{said}",
            detail="conversation_missing",
        )
    kind = _kind(result, error, reason)
    until = resets_at if kind == "rate_limited" else None
    return Outcome(kind, f"{REMEDIES[kind]}{said}", until)


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
    if status in BY_STATUS:
        return BY_STATUS[status]
    if status >= 500:
        return "overloaded"
    if word in BY_ERROR:
        return BY_ERROR[word]
    return "config" if 400 <= status < 500 else "crashed"


def _said(result: Mapping[str, Any]) -> str:
    errors = result.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else result.get("result")
    kept = clip(text(first).strip(), 500)[0]
    return f" It said: {kept}" if kept else ""


def reset_time(error: Mapping[str, Any]) -> int | None:
    """When a rejected limit is free again (epoch seconds), from a synthetic error message."""
    info = mapping(mapping(error.get("api_error_params")).get("rate_limit_info"))
    return number(info.get("resetsAt")) or None
