"""The client of the `codex` runtime: it starts `codex app-server` and speaks with it, in JSON-RPC by lines (measured with 0.169.0).

Runs as `python -I -S codex_agent.py PROGRAM ARGUMENT...` in the working copy; what it is told and says is in `client_loop`. Its
request has besides: {"model", "resume", "patience", "provider_patience"}. It adds lines {"type": "usage", "request", "thread", "usage"}, one for
each request of the model. What people say in the middle of a turn is put into that turn; where it comes too late it begins another.

No working directory is named for a new conversation: it is the process's own. Codex would write down that it trusts one that is
named, and then obey the settings that the repository brings along.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.runtimes.client_loop import Client, Failed, begun, end, main
    from agents.runtimes.client_wire import Json, Wire, emit, mapping
    from agents.runtimes.codex_records import CodexRecords
else:  # it is run as a file
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    from client_loop import Client, Failed, begun, end, main
    from client_wire import Json, Wire, emit, mapping
    from codex_records import CodexRecords

LOOK_SECONDS = 0.1
CANCEL_SECONDS = 30.0
CLOSE_SECONDS = 5.0
NO_METHOD = -32601
APPROVALS = ("item/commandExecution/requestApproval", "item/fileChange/requestApproval")
# Told in another way, long and told again each time, or nothing that a reader of the session needs.
NO_NEWS = {
    "account/updated",
    "item/commandExecution/outputDelta",
    "item/commandExecution/terminalInteraction",
    "item/fileChange/outputDelta",
    "item/fileChange/patchUpdated",
    "item/reasoning/summaryPartAdded",
    "mcpServer/startupStatus/updated",
    "remoteControl/status/changed",
    "skills/changed",
    "thread/name/updated",
    "thread/readState/changed",
    "thread/settings/updated",
    "thread/started",
    "thread/status/changed",
    "turn/diff/updated",
    "turn/started",
}
KNOWN = ("threadId", "turnId", "startedAtMs", "completedAtMs", "summaryIndex", "contentIndex")


class CodexClient(Client):
    def __init__(self, request: Json) -> None:
        super().__init__(request)
        self.thread = self.turn_id = ""
        self.turn_over: asyncio.Future[Json] | None = None
        self.calls: dict[int, asyncio.Future[Json]] = {}
        self.called = 0
        self.gone = False  # it says nothing any more
        self.unheard: dict[str, str] = {}  # words that were put into the turn, until the model has them
        self.taken: set[str] = set()  # of these, what goes with its next request
        self.said = 0
        self.open_asks: set[object] = set()  # ids of what Codex asked and has not taken back
        self.records = CodexRecords()
        self.waits_since: float | None = None  # for its provider
        self.tasks: set[asyncio.Task[None]] = set()

    # what Codex says

    async def read(self) -> None:
        try:
            while (message := await self.wire.receive()) is not None:
                method, params = message.get("method"), mapping(message.get("params"))
                if not isinstance(method, str):
                    self.answered(message)
                elif "id" in message:
                    self.open_asks.add(message["id"])
                    self.begin(self.asked(message["id"], method, params))
                else:
                    self.noticed(method, params)
        finally:
            self.gone = self.over = True
            self.news.set()
            for future in (*self.calls.values(), self.turn_over):
                if future is not None and not future.done():
                    future.set_exception(Failed("exit", ""))

    def answered(self, message: Json) -> None:
        key = message.get("id")
        future = self.calls.pop(key, None) if isinstance(key, int) else None
        if future is None or future.done():
            return
        if "error" in message:
            error = mapping(message["error"])
            future.set_exception(Failed("", str(error.get("message"))[:4000], error.get("code")))
        else:
            future.set_result(mapping(message.get("result")))

    async def asked(self, key: Any, method: str, params: Json) -> None:
        if method not in APPROVALS:
            emit(
                "note", note="not_offered", text=f"Codex asked for {method[:100]}, which means nothing here."
            )
            error = {"code": NO_METHOD, "message": f"{method} is not offered"}
            await self.wire.send({"id": key, "error": error})
            return
        title = str(params.get("command") or params.get("reason") or "a change of files")
        answer = {"decision": "cancel"}
        if self.turn_id and not self.cancelled and key in self.open_asks:
            answer = await self.asking.ask(params, decision_of, title, key)
        with contextlib.suppress(ConnectionError):
            await self.wire.send({"id": key, "result": answer})

    def noticed(self, method: str, params: Json) -> None:
        self.look()
        if params.get("threadId", self.thread) != self.thread and self.thread:
            return
        if method == "serverRequest/resolved":
            self.open_asks.discard(params.get("requestId"))
            self.asking.withdraw(params.get("requestId"))
        elif method == "turn/completed":
            self.completed(mapping(params.get("turn")))
        elif not self.is_echo(method, mapping(params.get("item"))) and method not in NO_NEWS:
            if method.startswith("item/"):
                self.goes_on()
            elif method == "error" and params.get("willRetry") is True:
                self.waits_since = self.waits_since or time.monotonic()
            told = {name: value for name, value in params.items() if name not in KNOWN}
            emit("update", method=method, params=told)

    def completed(self, turn: Json) -> None:
        if self.turn_over is not None and not self.turn_over.done():
            if self.turn_id in ("", turn.get("id")):
                self.turn_over.set_result(turn)

    def is_echo(self, method: str, item: Json) -> bool:
        """Our own words; those that the turn has taken up go with the model's next request."""
        if not method.startswith("item/") or item.get("type") != "userMessage":
            return False
        if (key := str(item.get("clientId"))) in self.unheard:
            self.taken.add(key)
        return True

    def goes_on(self) -> None:
        """The model has answered: it has what was put into the turn."""
        self.waits_since = None
        for key in self.taken:
            self.unheard.pop(key, None)
        self.taken.clear()

    def look(self) -> None:
        for one in self.records.news():
            emit("usage", **one)

    async def watch(self) -> None:
        """What stands in the record, also while Codex says nothing; and an end to its waiting, which knows none where the network is down."""
        patience = float(self.request["provider_patience"])
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()
            waits = self.waits_since is not None and time.monotonic() - self.waits_since > patience
            if waits and self.turn_over is not None and not self.turn_over.done():
                self.turn_over.set_exception(Failed("patience", f"{patience:g}"))

    # what we say

    def begin(self, doing: Any) -> None:
        task = asyncio.create_task(doing)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def call(self, method: str, params: Json) -> Json:
        if self.gone:
            raise Failed("exit", "")
        self.doing = method
        self.called += 1
        key, future = self.called, asyncio.get_running_loop().create_future()
        self.calls[key] = future
        try:
            await self.wire.send({"id": key, "method": method, "params": params})
            answer: Json = await future
            return answer
        except Failed as failed:
            failed.at = failed.at or method
            raise
        except ConnectionError:
            raise Failed("exit", "") from None

    async def open(self) -> None:
        await self.call("initialize", {"clientInfo": {"name": "huskies", "version": "1"}})
        await self.wire.send({"method": "initialized"})
        policy = "untrusted" if self.asking.asks else "never"
        # No sandbox of its own: the one around all of us holds.
        given = {"model": self.request["model"], "approvalPolicy": policy, "sandbox": "danger-full-access"}
        if self.request["resume"]:
            before = self.records.newest()
            if not before:
                raise Failed("thread/resume", "")
            place = {"threadId": before, "excludeTurns": True, "cwd": os.getcwd()}  # noqa: PTH109
            answer = await self.call("thread/resume", place | given)
        else:
            answer = await self.call("thread/start", given)
        self.thread = str(mapping(answer.get("thread")).get("id"))
        resumed = self.request["resume"]
        emit("started", thread=self.thread, model=answer.get("model"), copy=os.getcwd(), resumed=resumed)  # noqa: PTH109

    async def turn(self, text: str) -> Json:
        self.busy, self.waits_since = True, None
        self.turn_over = over = asyncio.get_running_loop().create_future()
        answer = await self.call("turn/start", {"threadId": self.thread, "input": words(text)})
        self.turn_id = str(mapping(answer.get("turn")).get("id"))
        emit("turn_start", turn=self.turn_id)
        waiting = asyncio.create_task(self.until_cancelled())
        try:
            await asyncio.wait([over, waiting], return_when=asyncio.FIRST_COMPLETED)
            if not over.done():
                place = {"threadId": self.thread, "turnId": self.turn_id}
                with contextlib.suppress(Failed):  # it may be over by now, or Codex dead
                    await self.call("turn/interrupt", place)
                await asyncio.wait([over], timeout=CANCEL_SECONDS)
            turn: Json = over.result() if over.done() else {"status": "interrupted"}
        finally:
            waiting.cancel()
            self.turn_id = ""
            self.look()
        self.messages.extendleft(reversed(self.unheard.values()))
        self.unheard.clear()
        self.taken.clear()
        return {"status": turn.get("status"), "error": turn.get("error")}

    def hear(self, text: str) -> None:
        if self.turn_id and not self.cancelled:
            self.begin(self.steer(text))
        else:
            super().hear(text)

    async def steer(self, text: str) -> None:
        """Put words into the turn under way; if that is over, or takes none, they begin the next."""
        self.said += 1
        key = f"message-{self.said}"
        self.unheard[key] = text
        place = {"threadId": self.thread, "expectedTurnId": self.turn_id, "clientUserMessageId": key}
        try:
            await self.call("turn/steer", place | {"input": words(text)})
        except Failed:
            if self.unheard.pop(key, None) is not None:
                super().hear(text)

    # the whole

    async def run(self) -> None:
        program = await begun(sys.argv[1:], dict(os.environ))
        self.wire = Wire(program, lambda message: False)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os.killpg, program.pid, signal.SIGKILL)
        for doing in (self.read(), self.watch(), self.asking.beat()):
            self.begin(doing)
        try:
            await self.converse(program)
        finally:
            for task in list(self.tasks):
                task.cancel()
            await self.wire.close()
            await end(program, CLOSE_SECONDS if self.thread else 0.2)
            self.look()


def words(text: str) -> list[Json]:
    return [{"type": "text", "text": text}]


def decision_of(decision: Json | None) -> tuple[Json, bool]:
    """Codex's word for a decision. What is allowed for the session the server itself remembers, and means that very call."""
    if decision is None:
        return {"decision": "cancel"}, False
    allows = decision.get("allow") is True
    return {"decision": "accept" if allows else "decline"}, allows


if __name__ == "__main__":
    sys.exit(asyncio.run(main(CodexClient)))
