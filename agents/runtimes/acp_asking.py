"""The permissions that a program asks the `acp` runtime's client (acp_agent) for, until somebody answers."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.runtimes.acp_wire import Json, emit, items, mapping, option_for
else:  # beside the client, which is run as a file
    from acp_wire import Json, emit, items, mapping, option_for

MOST_ASKED = 32  # requests that wait at a time
BEAT_SECONDS = 20.0  # while it waits for an answer it says so: that is no silence
CANCELLED: Json = {"outcome": {"outcome": "cancelled"}}


class Asking:
    """`asks`: whether people are asked at all; `seconds`: how long their answer is waited for; `tell` gets what the agent must hear of it."""

    def __init__(self, asks: bool, seconds: float, tell: Callable[[str], None]) -> None:
        self.asks, self.seconds, self.tell = asks, seconds, tell
        self.waiting: dict[str, tuple[object, asyncio.Future[Json | None]]] = {}
        self.asked = 0
        self.ended = False  # nobody is there to answer any more
        self.reasons: set[str] = set()

    async def ask(self, params: Json) -> Json:
        """The answer to a request for a permission; refused when nobody answers in time."""
        if len(self.waiting) >= MOST_ASKED:
            return CANCELLED
        options = items(params.get("options"))
        if not self.asks:
            emit("allowed", request={"toolCall": params.get("toolCall")})
            return outcome_of(option_for(options, {"allow": True}))
        if self.ended:
            return outcome_of(option_for(options, {"allow": False}))
        self.asked += 1
        key = f"permission-{self.asked}"
        future: asyncio.Future[Json | None] = asyncio.get_running_loop().create_future()
        self.waiting[key] = (params.pop("huskies", None), future)
        emit("permission", id=key, request=params)
        decision: Json | None
        try:
            async with asyncio.timeout(self.seconds):
                decision = await future
        except TimeoutError:
            decision = {"allow": False}
        finally:
            self.waiting.pop(key, None)
        chosen = option_for(options, decision) if decision is not None else None
        allowed = decision is not None and decision.get("allow") is True and chosen is not None
        emit("permission_over", id=key, allowed=allowed, withdrawn=decision is None)
        if decision is not None and not allowed and decision.get("reason"):
            self._say_why(params, str(decision["reason"]))
        return outcome_of(chosen)

    def _say_why(self, params: Json, reason: str) -> None:
        """The protocol's answer has no room for a reason: it is told in the next turn, each once."""
        if reason not in self.reasons:
            self.reasons.add(reason)
            title = str(mapping(params.get("toolCall")).get("title") or "what you asked for")[:500]
            words = f"You asked for permission and it was denied: {title}\nThe reason: {reason}"
            emit("note", note="told", text=words)
            self.tell(words)

    def answer(self, value: Json) -> None:
        found = self.waiting.get(str(value.get("id")))
        if found is not None and not found[1].done():
            found[1].set_result(value)

    def end(self) -> None:
        """What waits is refused, and whatever comes."""
        self.ended = True
        for _, future in list(self.waiting.values()):
            if not future.done():
                future.set_result({"allow": False})

    def withdraw(self, request: object = None) -> None:
        """Nobody needs to answer this request of the program any more, or none of them."""
        for asked, future in list(self.waiting.values()):
            if (request is None or asked == request) and not future.done():
                future.set_result(None)

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self.waiting:
                emit("waiting")


def outcome_of(option: str | None) -> Json:
    return CANCELLED if option is None else {"outcome": {"outcome": "selected", "optionId": option}}
