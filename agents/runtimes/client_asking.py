"""The permissions that a program asks one of our clients for, until somebody answers."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.runtimes.client_wire import Json, emit
else:  # beside the client, which is run as a file
    from client_wire import Json, emit

MOST_ASKED = 32  # requests that wait at a time
BEAT_SECONDS = 20.0  # while it waits for an answer it says so: that is no silence


class Asking:
    """`asks`: whether people are asked at all; `seconds`: how long their answer is waited for; `tell` gets what the agent must hear of it."""

    def __init__(self, asks: bool, seconds: float, tell: Callable[[str], None]) -> None:
        self.asks, self.seconds, self.tell = asks, seconds, tell
        self.waiting: dict[str, tuple[object, asyncio.Future[Json | None]]] = {}
        self.asked = 0
        self.ended = False  # nobody is there to answer any more
        self.reasons: set[str] = set()

    async def ask(
        self,
        request: Json,
        answer: Callable[[Json | None], tuple[Json, bool]],
        title: str,
        mark: object = None,
    ) -> Json:
        """The program's answer to what it asks; refused when nobody answers in time.

        `answer` words a decision in the program's language (None: nobody needs to decide any more) and says whether that allows it.
        `mark` is what `withdraw` knows the request by.
        """
        if len(self.waiting) >= MOST_ASKED:
            return answer(None)[0]
        if not self.asks:
            emit("allowed", request=request)
            return answer({"allow": True})[0]
        if self.ended:
            return answer({"allow": False})[0]
        self.asked += 1
        key = f"permission-{self.asked}"
        future: asyncio.Future[Json | None] = asyncio.get_running_loop().create_future()
        self.waiting[key] = (mark, future)
        emit("permission", id=key, request=request)
        decision: Json | None
        try:
            async with asyncio.timeout(self.seconds):
                decision = await future
        except TimeoutError:
            decision = {"allow": False}
        finally:
            self.waiting.pop(key, None)
        told, allowed = answer(decision)
        emit("permission_over", id=key, allowed=allowed, withdrawn=decision is None)
        if decision is not None and not allowed and decision.get("reason"):
            self._say_why(title, str(decision["reason"]))
        return told

    def _say_why(self, title: str, reason: str) -> None:
        """The answer has no room for a reason: it is told besides, each once."""
        if reason not in self.reasons:
            self.reasons.add(reason)
            words = f"You asked for permission and it was denied: {title[:500]}\nThe reason: {reason}"
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
