"""Reads the lines of a client of ours (`client_loop`): what is the same for every program that one speaks with.

Tolerant on purpose: what is not known becomes a `note`, what is not JSON becomes `output`, nothing raises.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from .base import Event, Redact
from .bounds import bounded, clip, clipped, copied, line_of, mapping, number, readable, text
from .lines import LineParser

LONG_LINE = 4096  # characters of an unfinished line after which its words are passed on
WordKind = Literal["text", "thinking"]


class ClientParser(LineParser):
    def __init__(self, state: Mapping[str, Any] | None = None, redact: Redact | None = None) -> None:
        super().__init__(state, redact)
        self._words: dict[str, Any] = mapping(
            copied(state).get("words")
        )  # kind -> words of an unfinished line

    def state(self) -> dict[str, Any]:
        return super().state() | {"words": copied(self._words)}

    def _note(self, data: bytes) -> list[Event]:
        events = super()._note(data)
        ends = self._main and any(event.body.get("note") == "step-end" for event in events)
        return [*self._rest(), *events] if ends else events  # the last words of a turn that broke off

    def _message(self, message: dict[str, Any]) -> list[Event]:
        kind = text(message.get("type"))
        if kind == "update":
            return self._update(message)
        if kind == "waiting":
            return []  # it only says that it lives
        return [*self._rest(), *self._told(kind, message)]

    def _told(self, kind: str, message: dict[str, Any]) -> list[Event]:
        if kind == "unread":
            body, cut = clipped(text(message.get("text"))), number(message.get("cut"))
            more = {"cut": cut + body.get("cut", 0)} if cut else {}
            return [Event("output", {**body, **more, "stream": "stdout"})]
        if kind == "note":
            note = {"note": clip(text(message.get("note")), 50)[0]}
            return [Event("note", note | clipped(text(message.get("text")), 4000))]
        return self._own(kind, message)

    @abstractmethod
    def _update(self, message: dict[str, Any]) -> list[Event]:
        """A line that hands on what the program told; the words before it are not over."""

    @abstractmethod
    def _own(self, kind: str, message: dict[str, Any]) -> list[Event]:
        """Another line of the client's."""

    # ---------------------------------------------------------------- words, as they come in pieces

    def _say(self, kind: WordKind, said: str) -> list[Event]:
        """Whole lines, of which the rest comes."""
        events = [event for other in list(self._words) if other != kind for event in self._flush(other)]
        self._words[kind] = text(self._words.get(kind)) + said
        end = self._words[kind].rfind("\n") + 1
        if not end and len(self._words[kind]) > LONG_LINE:
            end = len(self._words[kind])
        ready, self._words[kind] = self._words[kind][:end], self._words[kind][end:]
        return events + self._texts(kind, ready, more=True)

    def _flush(self, kind: str) -> list[Event]:
        return self._texts(kind, text(self._words.pop(kind, "")), more=False)

    def _rest(self) -> list[Event]:
        return [event for kind in list(self._words) for event in self._flush(kind)]

    def _texts(self, kind: str, said: str, *, more: bool) -> list[Event]:
        if self._redact is not None:  # a secret may have been split over two pieces
            said = self._redact(said.encode("utf-8", "replace")).decode("utf-8", "replace")
        body = clipped(said) | ({"more": True} if more else {})
        return [Event("thinking" if kind == "thinking" else "text", body)] if said else []


def strange(kind: str, message: Mapping[str, Any]) -> Event:
    """A note of what is not known."""
    body: dict[str, Any] = {"note": clip(kind or "untyped", 100)[0], "title": line_of(kind or "untyped")}
    return Event("note", body | clipped(readable(bounded(dict(message))), 4000))
