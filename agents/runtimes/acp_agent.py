"""The client of the `acp` runtime: it starts an agent program and speaks the Agent Client Protocol with it.

Runs as `python -I acp_agent.py` in the working copy; what it is told and says is in `client_loop`. Its request has besides:
{"argv", "home", "memory", "resume", "mode", "model", "auth_method", "patience"}.

The program gets a home of its own, which is carried from session to session with its conversations; where they hold the
path of the earlier working copy, it becomes the present one's. No file system and no terminal is offered: the program has
its own, in the same confinement.
"""

import asyncio
import contextlib
import functools
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acp.connection import Connection
from acp.exceptions import RequestError
from acp.helpers import text_block
from acp.meta import AGENT_METHODS, CLIENT_METHODS, PROTOCOL_VERSION
from acp.schema import Implementation, InitializeRequest, NewSessionRequest, PromptRequest
from acp.utils import serialize_params

if TYPE_CHECKING:
    from agents.runtimes.acp_home import move_home, read_memory, write_memory
    from agents.runtimes.acp_wire import CANCELLED, answer_of, options_of, value_named, words_of
    from agents.runtimes.client_loop import Client, Failed, begun, end, main
    from agents.runtimes.client_wire import Json, Wire, emit, items, mapping
else:  # it is run as a file; at the end of the path, for beside it lies an acp.py
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    from acp_home import move_home, read_memory, write_memory
    from acp_wire import CANCELLED, answer_of, options_of, value_named, words_of
    from client_loop import Client, Failed, begun, end, main
    from client_wire import Json, Wire, emit, items, mapping

MOST_STRANGE = 32
NO_NEWS = ("available_commands_update", "user_message_chunk")  # some are long, and told again each turn
CANCEL_SECONDS = 30.0
CLOSE_SECONDS = 5.0
QUIET_SECONDS = 1.0  # without a word: then a loaded conversation has been told again in whole


class AcpClient(Client):
    def __init__(self, request: Json) -> None:
        super().__init__(request)
        self.session = ""
        self.offers: Json = {}
        self.listening = False  # what comes before the first prompt is a conversation told again
        self.heard_at = 0.0
        self.strange: set[str] = set()  # methods that are not ours, each told once
        self.memory: Json = {}
        if request["resume"]:
            self.memory = read_memory(request["memory"])
            move_home(request["home"], str(self.memory.get("copy") or ""), str(Path.cwd()))

    # what the program says

    def took(self, message: Json) -> bool:
        """Whether this message is done with: an update, or a question that is taken back."""
        method, params = message.get("method"), mapping(message.get("params"))
        if method == CLIENT_METHODS["session_update"]:
            self.heard_at = asyncio.get_running_loop().time()
            update = mapping(params.get("update"))
            if self.listening and update.get("sessionUpdate") not in NO_NEWS:
                emit("update", update=update)
                self._remember(update)
        elif method == "$/cancel_request":
            self.asking.withdraw(params.get("requestId"))
        elif method == CLIENT_METHODS["session_request_permission"] and "id" in message:
            message["params"] = {**params, "huskies": message["id"]}
            return False
        else:
            return False
        return "id" not in message

    def _remember(self, update: Json) -> None:
        if update.get("sessionUpdate") == "usage_update" and isinstance(update.get("cost"), dict):
            self.remember(cost=update["cost"].get("amount"))

    async def handle(self, method: str, params: Any, notification: bool) -> Json | None:
        if method == CLIENT_METHODS["session_request_permission"] and not notification:
            known = self.listening and not self.cancelled
            return await self.ask(mapping(params)) if known else CANCELLED
        if method == CLIENT_METHODS["session_update"]:
            return None
        if method not in self.strange and len(self.strange) < MOST_STRANGE:
            self.strange.add(method)
            emit(
                "note", note="not_offered", text=f"The program sent {method[:100]}, which means nothing here."
            )
        if notification:
            return None
        raise RequestError.method_not_found(method)

    async def ask(self, params: Json) -> Json:
        call, options = mapping(params.get("toolCall")), items(params.get("options"))
        title = str(call.get("title") or "what you asked for")
        words = functools.partial(answer_of, options)
        return await self.asking.ask({"toolCall": call}, words, title, params.get("huskies"))

    # what we do

    async def call(self, method: str, params: Json) -> Json:
        self.doing = AGENT_METHODS.get(method, method)
        try:
            return mapping(await self.connection.send_request(self.doing, params))
        except RequestError as error:
            raise Failed(self.doing, words_of(error), error.code) from None
        except (ConnectionError, OSError):
            raise Failed("exit", "") from None

    async def open(self) -> None:
        """Up to a session that takes a prompt; raises `Failed`."""
        hello = InitializeRequest(
            protocol_version=PROTOCOL_VERSION, client_info=Implementation(name="huskies", version="1")
        )
        answer = await self.call("initialize", serialize_params(hello))
        if answer.get("protocolVersion") != PROTOCOL_VERSION:
            raise Failed("version", f"{str(answer.get('protocolVersion'))[:50]}, not {PROTOCOL_VERSION}")
        self.offers = mapping(answer.get("agentCapabilities"))
        if self.request.get("auth_method"):
            await self.call("authenticate", {"methodId": self.request["auth_method"]})
        state = await (self._go_on() if self.request["resume"] else self._begin())
        mode = await self._set_mode(state)
        model = await self._set_model(state)
        resumes, loads = self._can("resume"), self.offers.get("loadSession") is True
        self.remember(session=self.session, copy=str(Path.cwd()), resumes=resumes or loads)
        who = mapping(answer.get("agentInfo"))
        given = {"program": who.get("name"), "version": who.get("version"), "mode": mode, "model": model}
        known = {name: self.memory.get(name) for name in ("used", "cost") if self.request["resume"]}
        emit("started", session=self.session, **given, **known)

    def _can(self, what: str) -> bool:
        """Whether the program has one of the newer methods of sessions."""
        return isinstance(mapping(self.offers.get("sessionCapabilities")).get(what), dict)

    async def _begin(self) -> Json:
        state = await self.call(
            "session_new", serialize_params(NewSessionRequest(cwd=str(Path.cwd()), mcp_servers=[]))
        )
        if not isinstance(state.get("sessionId"), str) or not state["sessionId"]:
            raise Failed("session/new", "It gave no id of a session.")
        self.session = state["sessionId"]
        return state

    async def _go_on(self) -> Json:
        """The earlier session, without its history where the program can do that, else told again, which nobody hears."""
        self.session = str(self.memory.get("session") or "")
        place = {"sessionId": self.session, "cwd": str(Path.cwd()), "mcpServers": []}
        if self._can("resume"):
            return await self.call("session_resume", place)
        state = await self.call("session_load", place)
        clock = asyncio.get_running_loop()
        self.heard_at = clock.time()
        # ruff: noqa: ASYNC110  (there is no event for a silence)
        while (left := self.heard_at + QUIET_SECONDS - clock.time()) > 0:
            await asyncio.sleep(left)
        return state

    async def _set_mode(self, state: Json) -> object:
        modes, wanted = mapping(state.get("modes")), self.request.get("mode")
        if not wanted:
            return modes.get("currentModeId")
        offered = [str(one.get("id")) for one in items(modes.get("availableModes"))]
        if wanted in offered:
            await self.call("session_set_mode", {"sessionId": self.session, "modeId": wanted})
        elif not await self._set_option(state, "mode", wanted):
            raise Failed("mode", ", ".join(offered)[:500])
        return wanted

    async def _set_model(self, state: Json) -> object:
        wanted, models = self.request.get("model"), mapping(state.get("models"))
        options, current = options_of(state, "model"), models.get("currentModelId")
        if not wanted:
            return current or next((one.get("currentValue") for one in options), None)
        if options or not models:
            if not await self._set_option(state, "model", wanted):
                emit(
                    "note",
                    note="model",
                    text="The program offers no choice of a model; it is in HUSKIES_MODEL.",
                )
        elif (chosen := value_named(items(models.get("availableModels")), "modelId", wanted)) != current:
            # A method that the protocol has given up again; some programs have nothing else.
            await self.call("session/set_model", {"sessionId": self.session, "modelId": chosen})
        return wanted

    async def _set_option(self, state: Json, category: str, wanted: str) -> bool:
        for option in options_of(state, category)[:1]:
            value = value_named(items(option.get("options")), "value", wanted)
            if value != option.get("currentValue"):
                config = {"sessionId": self.session, "configId": option.get("id"), "value": value}
                await self.call("session_set_config_option", config)
            return True
        return False

    async def turn(self, text: str) -> Json:
        prompt = PromptRequest(session_id=self.session, prompt=[text_block(text)])
        self.listening = self.busy = True
        emit("turn_start")
        asking = asyncio.create_task(self.call("session_prompt", serialize_params(prompt)))
        waiting = asyncio.create_task(self.until_cancelled())
        try:
            answer = await self._answered(asking, waiting)
        finally:
            asking.cancel()
            waiting.cancel()
        self.remember(used=mapping(answer.get("usage")) or self.memory.get("used"))
        stop = str(answer.get("stopReason"))[:100]
        return {"stop": stop, "usage": answer.get("usage"), "meta": answer.get("_meta")}

    async def _answered(self, asking: asyncio.Task[Json], waiting: asyncio.Task[None]) -> Json:
        await asyncio.wait([asking, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            await self.connection.send_notification(
                AGENT_METHODS["session_cancel"], {"sessionId": self.session}
            )
            await asyncio.wait([asking], timeout=CANCEL_SECONDS)
            if not asking.done() or (isinstance(why := asking.exception(), Failed) and why.at != "exit"):
                return {"stopReason": "cancelled"}  # some answer with an error, some not at all
        return await asking

    def remember(self, **facts: Any) -> None:
        """What the next session needs to go on with this conversation."""
        self.memory |= facts
        write_memory(self.request["memory"], self.memory)

    async def run(self) -> None:
        environment = {**os.environ, "HOME": self.request["home"]}
        program = await begun(self.request["argv"], environment)
        self.connection = Connection(self.handle, Wire(program, self.took))
        beating = asyncio.create_task(self.asking.beat())
        try:
            await self.converse(program)
        finally:
            beating.cancel()
            await self.close(program)

    async def close(self, program: asyncio.subprocess.Process) -> None:
        if program.returncode is None and self._can("close") and self.session:
            with contextlib.suppress(Failed, TimeoutError):
                await asyncio.wait_for(self.call("session_close", {"sessionId": self.session}), CLOSE_SECONDS)
        with contextlib.suppress(Exception):
            await self.connection.close()
        await end(program, CLOSE_SECONDS if self.session else 0.2)  # without one it has nothing to save


if __name__ == "__main__":
    # The connection tells what it makes of strange messages; we tell it in our own lines.
    logging.disable(logging.CRITICAL)
    sys.exit(asyncio.run(main(AcpClient)))
