"""A program that speaks the Agent Client Protocol by the SDK's own side of an agent, and does what it is told: for tests of the client.

Runs as `python -I acp_program.py JSON`. The JSON is {"turns": [[STEP, ...], ...], and what it offers: "modes", "models", "options",
"load", "resume", "auth"}. A step has one key, see `Program.step_…`. It keeps its conversations in its home, by the folder's path.
"""

import asyncio
import json
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

from acp.agent.connection import AgentSideConnection
from acp.core import run_agent
from acp.exceptions import RequestError
from acp.schema import (
    InitializeResponse,
    LoadSessionResponse,
    NewSessionResponse,
    ResumeSessionResponse,
)

Json = dict[str, Any]


def print_line(line: str) -> None:
    data = memoryview(line.encode("utf-8", "surrogateescape") + b"\n")
    os.set_blocking(1, True)
    while data:
        data = data[os.write(1, data) :]


class Program:
    def __init__(self, script: Json) -> None:
        self.script = script
        self.turn = 0
        self.history: list[Json] = []
        self.session = ""
        self.cwd = ""
        self.cancelled = asyncio.Event()
        self.answer: Json = {"stopReason": "end_turn"}

    def on_connect(self, connection: AgentSideConnection) -> None:
        self.connection = connection

    # the protocol

    async def initialize(self, protocol_version: int, **_: Any) -> InitializeResponse:
        if self.script.get("silent"):
            await asyncio.Event().wait()
        sessions = {"resume": {}} if self.script.get("resume") else {}
        offers = {
            "loadSession": bool(self.script.get("load")),
            "sessionCapabilities": {**sessions, "close": {}},
        }
        info = {"name": "acp-program", "version": "1.2"}
        version = self.script.get("version", protocol_version)
        return InitializeResponse.model_validate(
            {"protocolVersion": version, "agentCapabilities": offers, "agentInfo": info}
        )

    async def authenticate(self, method_id: str, **_: Any) -> None:
        if method_id != self.script.get("auth"):
            raise RequestError(-32000, "Authentication required")
        self.script.pop("auth")

    async def new_session(self, cwd: str, **_: Any) -> NewSessionResponse:
        if self.script.get("auth"):
            raise RequestError(-32000, "Authentication required")
        self.session, self.cwd = uuid.uuid4().hex, cwd
        return NewSessionResponse.model_validate({"sessionId": self.session, **self.state()})

    def state(self) -> Json:
        state: Json = {}
        if modes := self.script.get("modes"):
            offered = [{"id": one, "name": one} for one in modes]
            state["modes"] = {"currentModeId": modes[0], "availableModes": offered}
        if models := self.script.get("models"):
            values = [{"value": one, "name": one} for one in models]
            chosen = {"currentValue": models[0], "options": values}
            state["configOptions"] = [
                {"id": "m", "name": "Model", "category": "model", "type": "select", **chosen}
            ]
        return state

    def record(self) -> Path:
        return Path.home() / "conversations" / Path(self.cwd).name / f"{self.session}.json"

    def restore(self, session: str, cwd: str) -> None:
        self.session, self.cwd = session, cwd
        if not self.record().exists():
            raise RequestError(-32002, "Resource not found")
        kept = json.loads(self.record().read_text())
        if kept["cwd"] != cwd:
            raise RequestError(-32002, f"The conversation belongs to {kept['cwd']}")
        self.turn, self.history = kept["turn"], kept["history"]

    async def load_session(self, cwd: str, session_id: str, **_: Any) -> LoadSessionResponse:
        self.restore(session_id, cwd)
        for update in self.history[:1]:
            await self.tell(update)
        # As Gemini CLI does it: the rest is told while the answer is on its way.
        self.late = asyncio.create_task(self.tell_late())
        return LoadSessionResponse.model_validate(self.state())

    async def tell_late(self) -> None:
        for update in self.history[1:]:
            await asyncio.sleep(0.02)
            await self.tell(update)

    async def resume_session(self, session_id: str, cwd: str, **_: Any) -> ResumeSessionResponse:
        self.restore(session_id, cwd)
        return ResumeSessionResponse.model_validate(self.state())

    async def set_session_mode(self, mode_id: str, **_: Any) -> None:
        Path("mode.txt").write_text(mode_id)

    async def set_config_option(self, config_id: str, value: object, **_: Any) -> Json:
        if value not in self.script["models"]:
            raise RequestError(-32602, f"There is no model {value}")
        Path("model.txt").write_text(f"{config_id}={value}")
        return {"configOptions": []}

    async def close_session(self, **_: Any) -> None:
        Path("closed.txt").touch()

    async def cancel(self, **_: Any) -> None:
        self.cancelled.set()

    async def prompt(self, prompt: list[Any], **_: Any) -> Json:
        turns = self.script["turns"]
        steps, self.turn = turns[min(self.turn, len(turns) - 1)], self.turn + 1
        self.answer = {"stopReason": "end_turn"}
        self.cancelled.clear()
        with Path("prompts.txt").open("a") as told:
            told.write("".join(block.text for block in prompt) + "\n")
        for part in ("begin", "end"):
            self.history.append(words("agent_message_chunk", f"history: the {part} of turn {self.turn}\n"))
        self.record().parent.mkdir(parents=True, exist_ok=True)
        kept = {"cwd": self.cwd, "turn": self.turn, "history": self.history}
        self.record().write_text(json.dumps(kept))
        for step in steps:
            name, value = next(iter(step.items()))
            await getattr(self, f"step_{name}")(value)
        return self.answer  # as it is told to: also what no version of the protocol knows

    # what it is told to do

    async def tell(self, update: Json) -> None:
        message = {"jsonrpc": "2.0", "method": "session/update"}
        print_line(json.dumps({**message, "params": {"sessionId": self.session, "update": update}}))

    async def step_say(self, text: str) -> None:
        await self.tell(words("agent_message_chunk", text))

    async def step_say_much(self, size: int) -> None:
        await self.step_say("x" * size)

    async def step_think(self, text: str) -> None:
        await self.tell(words("agent_thought_chunk", text))

    async def step_update(self, update: Json) -> None:
        await self.tell(update)

    async def step_write(self, value: Json) -> None:
        Path(value["path"]).write_text(value["content"])

    async def step_print(self, line: str) -> None:
        print_line(line)

    async def step_huge_line(self, size: int) -> None:
        print_line("x" * size)

    async def step_ask(self, value: Json) -> None:
        """Its answer goes to the file `answer.txt`."""
        asked = asyncio.create_task(
            self.connection._conn.send_request("session/request_permission", self.request(value))
        )
        if value.get("withdrawn"):
            number = self.connection._conn._next_request_id
            await asyncio.sleep(0.2)
            message = {"jsonrpc": "2.0", "method": "$/cancel_request", "params": {"requestId": number}}
            print_line(json.dumps(message))
        answer = await asked
        with Path("answer.txt").open("a") as told:
            told.write(json.dumps(answer) + "\n")

    def request(self, value: Json) -> Json:
        options = [{"optionId": f"id-{kind}", "name": kind, "kind": kind} for kind in value["options"]]
        call = {"toolCallId": "call-1", "title": "rm -rf build", "kind": "execute", **value.get("call", {})}
        return {"sessionId": self.session, "toolCall": call, "options": options}

    async def step_send(self, value: Json) -> None:
        """A request that the client does not know; its answer goes to `answer.txt`."""
        try:
            answer = await self.connection._conn.send_request(value["method"], value.get("params"))
        except RequestError as error:
            answer = {"code": error.code}
        Path("answer.txt").write_text(json.dumps(answer))

    async def step_answer(self, value: Json) -> None:
        self.answer = value

    async def step_error(self, value: Json) -> None:
        raise RequestError(
            value.get("code", -32603), value.get("message", "Internal error"), value.get("data")
        )

    async def step_hang(self, _value: object) -> None:
        await self.cancelled.wait()
        self.answer = {"stopReason": "cancelled"}

    async def step_deaf(self, _value: object) -> None:
        await asyncio.Event().wait()

    async def step_exit(self, code: int) -> None:
        os._exit(code)

    async def step_crash(self, _value: object) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


def words(kind: str, text: str) -> Json:
    return {"sessionUpdate": kind, "content": {"type": "text", "text": text}}


if __name__ == "__main__":
    asyncio.run(run_agent(Program(json.loads(sys.argv[1])), use_unstable_protocol=True))  # type: ignore[arg-type]  # it has what these tests use
