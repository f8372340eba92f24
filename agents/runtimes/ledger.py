"""The tokens of a session, per request and while they are spent.

A killed program never says what it used, so the counts are taken from its stream as they grow: the
prompt's at the beginning of a request, the answer's at its end. When the program does report
totals of its run, what the stream did not show (requests beside the conversation) is added.

Only growth is booked, of counts and of what they cost, so a request comes to the same sum however
often its counts are told, in whatever pieces and whichever other requests come between.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from agents import prices
from agents.prices import MICRO, canonical

from .base import Event
from .bounds import clip, mapping, number, text

COUNTS = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "thinking")
PROMPT = ("input", "cache_read", "cache_write")  # the kinds that a request's prompt is made of
MOST_SEEN = 64  # ids of the last requests, to know one that the stream has shown already
MOST_MODELS = 32
MOST_COUNT = (
    10**9
)  # tokens of one kind that one request, or what is settled at once, may be said to have used

Counts = dict[str, int]


class Ledger:
    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        known = dict(state or {})
        # of the request that is under way, by the tool use that it runs in ("" is the conversation)
        self._open: dict[str, dict[str, Any]] = mapping(known.get("open"))
        self._totals: dict[str, Counts] = mapping(known.get("totals"))
        self._seen: list[str] = list(known.get("seen") or [])

    def state(self) -> dict[str, Any]:
        return {"open": self._open, "totals": self._totals, "seen": self._seen}

    def has_seen(self, request: str) -> bool:
        return clip(request, 100)[0] in self._seen

    def start(self, place: str, request: str, model: str, counts: Counts) -> list[Event]:
        """A request began; its `counts` are those of the prompt."""
        place, request, model = (clip(one, 100)[0] for one in (place, request, model))
        if len(self._open) >= MOST_SEEN and place not in self._open:
            self._open.pop(next(iter(self._open)))
        self._open[place] = {"request": request, "model": model, "counts": dict.fromkeys(COUNTS, 0)}
        self._seen = [*self._seen, request][-MOST_SEEN:]
        return self.grow(place, counts)

    def grow(self, place: str, counts: Counts) -> list[Event]:
        """The request under way has used `counts` so far (cumulative); only growth is booked."""
        place = clip(place, 100)[0]
        entry = self._open.get(place)
        if entry is None:
            return []
        events = self._grown(entry, counts)
        for event in events if place else ():
            event.body["within"] = place
        return events

    def settle(self, totals: Mapping[str, Counts], mark: str) -> list[Event]:
        """The program's own totals of this run by model, as of now: books what no request has shown."""
        events: list[Event] = []
        for named, counts in list(totals.items())[:MOST_MODELS]:
            model = clip(named, 100)[0]
            booked = self._totals.get(canonical(model), {})
            unseen = {kind: max(0, counts.get(kind, 0) - booked.get(kind, 0)) for kind in COUNTS}
            entry = {
                "request": f"unseen-{mark}",
                "model": model,
                "counts": dict.fromkeys(COUNTS, 0),
                "many": True,
            }
            events += self._grown(entry, unseen)
        return events

    def _grown(self, entry: dict[str, Any], counts: Counts) -> list[Event]:
        known: Counts = entry["counts"]
        delta: Counts = {}
        for kind in COUNTS:
            more = min(counts.get(kind, 0), MOST_COUNT) - known.get(kind, 0)
            delta[kind] = more if more > 0 else 0
        if not any(delta.values()):
            return []
        now = entry["counts"] = {kind: known.get(kind, 0) + delta[kind] for kind in COUNTS}
        model = text(entry["model"])
        name = canonical(model)
        if name in self._totals or len(self._totals) < MOST_MODELS:
            before = self._totals.get(name, {})
            self._totals[name] = {kind: before.get(kind, 0) + delta[kind] for kind in COUNTS}
        # How long each prompt of several requests was is not known: the price of a short one holds.
        prompt = 0 if entry.get("many") else sum(now[kind] for kind in PROMPT)
        price, listed = prices.of(model)
        whole, paid = prices.priced(price, now, prompt).quantize(MICRO), Decimal(entry.get("cost", "0"))
        entry["cost"] = format(max(whole, paid), "f")
        body: dict[str, Any] = {
            "request_id": clip(text(entry["request"]), 100)[0],
            "model": clip(model, 100)[0],
            **delta,
        }
        body["cost_usd"] = format(max(Decimal(0), whole - paid), "f")
        if not listed:
            body["unlisted"] = True  # priced as the dearest model
        return [Event("usage", body)]


def added(one: Mapping[str, Counts], other: Mapping[str, Counts]) -> dict[str, Counts]:
    """Counts by model, both together; at most MOST_MODELS of them."""
    models = list(dict.fromkeys([*one, *other]))[:MOST_MODELS]
    return {
        model: {kind: one.get(model, {}).get(kind, 0) + other.get(model, {}).get(kind, 0) for kind in COUNTS}
        for model in models
    }


def counts_of_message(usage: object) -> Counts:
    """Counts from the `usage` of an Anthropic message; absent ones are 0."""
    raw = mapping(usage)
    return {
        "input": number(raw.get("input_tokens")),
        "output": number(raw.get("output_tokens")),
        "cache_read": number(raw.get("cache_read_input_tokens")),
        "cache_write": number(raw.get("cache_creation_input_tokens")),
        "cache_write_1h": number(mapping(raw.get("cache_creation")).get("ephemeral_1h_input_tokens")),
        "thinking": number(mapping(raw.get("output_tokens_details")).get("thinking_tokens")),
    }


def counts_of_model(usage: object) -> Counts:
    """Counts from one entry of Claude Code's `modelUsage`."""
    raw = mapping(usage)
    return {
        "input": number(raw.get("inputTokens")),
        "output": number(raw.get("outputTokens")),
        "cache_read": number(raw.get("cacheReadInputTokens")),
        "cache_write": number(raw.get("cacheCreationInputTokens")),
        "cache_write_1h": number(raw.get("cacheCreationEphemeral1hInputTokens")),
        "thinking": number(raw.get("thinkingTokens")),
    }
