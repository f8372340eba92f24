"""The tokens of a session, per request and while they are spent.

A killed program never says what it used, so the counts are taken from its stream as they grow: the
prompt's at the beginning of a request, the answer's at its end. When the program does report
totals of its run, what the stream did not show (requests beside the conversation) is added.

Only growth is booked, of counts and of what they cost, so a request comes to the same sum however
often its counts are told, in whatever pieces and whichever other requests come between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents import prices
from agents.prices import canonical

from .base import Event
from .bounds import clip, mapping, number, word

COUNTS = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "thinking")
MOST_SEEN = 64  # ids of the last requests, to know one that the stream has shown already
MOST_MODELS = 32
MOST_COUNT = (
    10**9
)  # tokens of one kind that one request, or what is settled at once, may be said to have used

Counts = dict[str, int]
NOTHING: Counts = dict.fromkeys(COUNTS, 0)
"""Never changed: what grows is a new one."""


class Ledger:
    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        known = dict(state or {})
        # of the request that is under way, by the tool use that it runs in ("" is the conversation)
        self._open: dict[str, dict[str, Any]] = mapping(known.get("open"))
        self._totals: dict[str, Counts] = mapping(known.get("totals"))
        self._seen: dict[str, None] = dict.fromkeys(known.get("seen") or ())

    def state(self) -> dict[str, Any]:
        return {"open": self._open, "totals": self._totals, "seen": list(self._seen)}

    def has_seen(self, request: str) -> bool:
        return word(request) in self._seen

    def start(self, place: str, request: str, model: str, counts: Counts) -> list[Event]:
        """A request began; its `counts` are those of the prompt."""
        place, request = place and word(place), word(request)
        if len(self._open) >= MOST_SEEN and place not in self._open:
            self._open.pop(next(iter(self._open)))
        entry = self._open[place] = {"request": request, "model": word(model), "counts": NOTHING}
        seen = self._seen
        seen.pop(request, None)
        seen[request] = None
        if len(seen) > MOST_SEEN:
            del seen[next(iter(seen))]
        return self._grown(entry, counts, place)

    def grow(self, place: str, counts: Counts) -> list[Event]:
        """The request under way has used `counts` so far (cumulative); only growth is booked."""
        place = word(place)
        entry = self._open.get(place)
        return [] if entry is None else self._grown(entry, counts, place)

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
                "counts": NOTHING,
                "many": True,
            }
            events += self._grown(entry, unseen)
        return events

    def _grown(self, entry: dict[str, Any], counts: Counts, place: str = "") -> list[Event]:
        known: Counts = entry["counts"]
        now = delta = counts if len(counts) == len(COUNTS) else NOTHING | counts
        if known is not NOTHING or min(now.values()) < 0 or max(now.values()) > MOST_COUNT:
            now, delta = {}, {}
            for kind in COUNTS:
                before = known.get(kind, 0)
                more = min(counts.get(kind, 0), MOST_COUNT) - before
                delta[kind] = more = more if more > 0 else 0
                now[kind] = before + more
        if now == known:
            return []
        entry["counts"] = now
        model = entry["model"]
        name = canonical(model)
        if name in self._totals:
            booked = self._totals[name]
            for kind, more in delta.items():
                if more:
                    booked[kind] += more
        elif len(self._totals) < MOST_MODELS:
            self._totals[name] = dict(delta)
        # How long each prompt of several requests was is not known: the price of a short one holds.
        prompt = 0 if entry.get("many") else now["input"] + now["cache_read"] + now["cache_write"]
        price, listed = prices.of(model)
        whole, paid = price.micro_dollars(now, prompt), entry.get("paid", 0)
        more = whole - paid if whole > paid else 0
        entry["paid"] = paid + more
        body: dict[str, Any] = {"request_id": entry["request"], "model": model, **delta}
        body["cost_usd"] = dollars(more)
        if not listed:
            body["unlisted"] = True  # priced as the dearest model
        if place:
            body["within"] = place
        return [Event("usage", body)]


def dollars(micro_dollars: int) -> str:
    """With six places, as the ledger's columns keep them."""
    return "%d.%06d" % divmod(micro_dollars, 1_000_000)  # noqa: UP031 - three times as fast as what it likes


def added(one: Mapping[str, Counts], other: Mapping[str, Counts]) -> dict[str, Counts]:
    """Counts by model, both together; at most MOST_MODELS of them."""
    models = list(dict.fromkeys([*one, *other]))[:MOST_MODELS]
    return {
        model: {kind: one.get(model, {}).get(kind, 0) + other.get(model, {}).get(kind, 0) for kind in COUNTS}
        for model in models
    }


def counts_of_message(usage: object) -> Counts:
    """Counts from the `usage` of an Anthropic message; absent ones are 0."""
    told = mapping(usage).get
    created, details = told("cache_creation"), told("output_tokens_details")
    return {
        "input": number(told("input_tokens", 0)),
        "output": number(told("output_tokens", 0)),
        "cache_read": number(told("cache_read_input_tokens", 0)),
        "cache_write": number(one) if (one := told("cache_creation_input_tokens")) else 0,
        "cache_write_1h": number(mapping(created).get("ephemeral_1h_input_tokens")) if created else 0,
        "thinking": number(mapping(details).get("thinking_tokens")) if details else 0,
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
