"""What a provider's refusal means, whichever program was told of it: its name, and what to do about it."""

from __future__ import annotations

from .base import Outcome, OutcomeKind
from .bounds import clip

REMEDIES: dict[OutcomeKind, str] = {
    "auth": "The provider refused the log-in: check the agent's credential, then start the story again.",
    "billing": "The provider refused for lack of credit: settle it with the provider, then start again.",
    "bad_model": "The provider does not offer this account the model: change the agent's model.",
    "context_full": "The conversation is too long for the model: start the story in a new conversation.",
    "rate_limited": "The account's limit is reached; the story waits until it is free again.",
    "overloaded": "The provider is overloaded or cannot be reached; the story waits and is tried again.",
    "config": "The provider refused the request itself: check the agent's settings.",
    "turn_limit": "The agent used all its turns. Raise max_turns, or split the story.",
    "budget": "The agent used its budget. Raise max_budget_usd, or split the story.",
    "crashed": "The program gave up with an error of its own.",
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


def kind_of_status(status: int) -> OutcomeKind | None:
    """What an HTTP status of the provider's means; None for one that is no refusal (0: none is known)."""
    if status in BY_STATUS:
        return BY_STATUS[status]
    if status >= 500:
        return "overloaded"
    return "config" if 400 <= status < 500 else None


def refused(kind: OutcomeKind, said: str, until: int | None = None) -> Outcome:
    """The outcome with its remedy and what the program said; `until` (epoch seconds) counts for a limit alone."""
    return Outcome(kind, REMEDIES[kind] + it_said(said), until if kind == "rate_limited" else None)


def conversation_missing(said: str = "") -> Outcome:
    reason = "The conversation to go on with is not there: a new one is needed."
    return Outcome("config", reason + it_said(said), detail="conversation_missing")


def it_said(said: str) -> str:
    """The program's words as the end of a reason; empty if there are none."""
    shown = clip(said.strip(), 500)[0]
    return f" It said: {shown}" if shown else ""
