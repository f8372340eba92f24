"""The agent of the direct-API runtimes: a conversation with a provider's model, by pydantic-ai, with file and shell tools by its harness.

Runs as `python -I -S api_agent.py PACKAGES` in the working copy; PACKAGES is where those two are installed (api_packages). Its stdin brings
one JSON object per line. The first is the request: {"api", "model", "key", "memory", "prompt", "resume", "instructions", "tools",
"max_turns", "retries", "permissions", "permission_seconds"}; the base URL is HUSKIES_BASE_URL in its environment. Then, at any time:
{"type": "message", "text"}, heard with the next request; {"type": "interrupt"}, which ends the turn; and {"type": "answer", "id", "allow",
"reason"}. When a turn is over and nothing waits, it waits for another message, until stdin ends.

Its stdout is lines of its own (api_lines), see `api_stream`. What the conversation is stands in the file `memory` before each request and
after each answer, so that a later session can go on with it wherever this one is killed: calls without a result are told to be interrupted.

The key came by stdin, is in this process's memory only, and no other process may look into that.
"""

import asyncio
import contextlib
import ctypes
import json
import logging
import math
import os
import re
import sys
import time
import uuid
import warnings
from collections import deque
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if not TYPE_CHECKING:
    sys.path.insert(0, sys.argv[1])  # it is run as a file, without any site

from pydantic_ai import Agent, UsageLimits
from pydantic_ai.exceptions import RunCancelled
from pydantic_ai.messages import ModelMessagesTypeAdapter, UserPromptPart, repair_messages

if TYPE_CHECKING:
    from agents.runtimes.api_lines import Json, Words, emit, short, smaller
    from agents.runtimes.api_models import Failure, failure_of, make_agent, make_model
else:  # at the end of the path, for beside it lie other names
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    from api_lines import Json, Words, emit, short, smaller
    from api_models import Failure, failure_of, make_agent, make_model

MOST_SAID = 64 * 1024 * 1024  # bytes of a line that we are told
BEAT_SECONDS = 20.0  # while it waits for an answer it says so: that is no silence
FIRST_DELAY = 0.6  # seconds before the second try; each further one waits twice as long
MOST_DELAY = 30.0
CUT_OFF = "Your answer reached the longest length that it may have and was cut off. Go on where it ends."
MOST_CUTS = 3  # in a row
BAD_END = re.compile(r"\n\[exit code: -?\d+\]$")  # as the harness tells it
CHANGES = ("file_system.file_written", "file_system.file_edited")
DENIED = "This was not allowed. Do without it, or do it another way."
PR_SET_DUMPABLE = 4


class Failed(Exception):
    """The conversation cannot go on."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.said)
        self.failure = failure


class Conversation:
    def __init__(self, request: Json) -> None:
        self.request = request
        self.memory = Path(request["memory"])
        self.history: list[Any] = []
        self.run: Any = None  # the agent's run while there is one
        self.messages: deque[str] = deque()
        self.news = asyncio.Event()
        self.over = False  # nobody says anything any more
        self.interrupted = False
        self.mark = uuid.uuid4().hex[:12]
        self.requests = self.answers = 0
        self.failures = 0  # in a row
        self.cuts = 0  # in a row
        self.counted: tuple[int, dict[str, int]] = (0, {})  # what was told last
        self.words = Words()
        self.waiting: dict[str, asyncio.Future[Json]] = {}
        self.asked = 0

    # -- what we are told --------------------------------------------------------------------------------------------

    async def listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ValueError):  # a line beyond all measure: nobody is heard after it
            while line := await reader.readline():
                self.told(line)
        self.over = True
        self.news.set()

    def told(self, line: bytes) -> None:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return
        kind = value.get("type") if isinstance(value, dict) else None
        if kind == "message" and isinstance(value.get("text"), str):
            self.messages.append(value["text"])
        elif kind == "interrupt":
            self.interrupted = True
            if self.run is not None:
                self.run.cancel()
        elif kind == "answer" and (future := self.waiting.get(str(value.get("id")))) and not future.done():
            future.set_result(value)
        self.news.set()

    async def ask(self, tool: str, arguments: Json) -> str:
        """Why a call is refused; empty when it is allowed."""
        self.asked += 1
        key = f"permission-{self.asked}"
        future = self.waiting[key] = asyncio.get_running_loop().create_future()
        emit("permission", id=key, tool=tool, input=smaller(arguments))
        try:
            async with asyncio.timeout(float(self.request["permission_seconds"])):
                answer = await future
        except TimeoutError:
            return "Nobody answered in time. Do without it, or do it another way."
        finally:
            self.waiting.pop(key, None)
            emit("permission_over", id=key)
        return "" if answer.get("allow") is True else str(answer.get("reason") or DENIED)

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self.waiting:
                emit("waiting")

    # -- what is kept ------------------------------------------------------------------------------------------------

    def keep(self, messages: list[Any]) -> None:
        """The conversation as it stands, on the disk too."""
        self.history = list(messages)
        fresh = self.memory.with_suffix(".new")
        fresh.write_bytes(ModelMessagesTypeAdapter.dump_json(self.history))
        os.replace(fresh, self.memory)  # noqa: PTH105

    def recall(self) -> None:
        """Raises `Failed` when there is nothing to go on with."""
        try:
            told = json.loads(self.memory.read_bytes())
            for message in told:
                message.pop("workspace_ref", None)  # it names the working copy of its time
            self.history = repair_messages(ModelMessagesTypeAdapter.validate_json(json.dumps(told)))
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
            raise Failed(Failure("conversation_missing", str(error)[:300])) from None

    # -- what we do --------------------------------------------------------------------------------------------------

    async def talk(self) -> None:
        """Turn after turn, until nobody has anything to say."""
        request = self.request
        if request["resume"]:
            self.recall()
        base_url = os.environ.pop("HUSKIES_BASE_URL")
        model = make_model(request["api"], request["model"], base_url, request.pop("key"))
        ask = self.ask if request["permissions"] == "ask" else None
        self.agent = make_agent(model, tools=request["tools"], instructions=request["instructions"], ask=ask)
        emit("started", model=request["model"], version=version("pydantic-ai-slim"), tools=request["tools"])
        prompt: str | None = request["prompt"]
        # A model that writes a file and runs it in one answer means one after the other.
        with Agent.parallel_tool_call_execution_mode("sequential"):
            await self.turns(prompt)

    async def turns(self, prompt: str | None) -> None:
        while prompt is not None:
            emit("turn_start")
            self.interrupted = False
            await self.turn(prompt)
            emit("turn_end", stop="interrupted" if self.interrupted else "done", requests=self.answers)
            while not self.messages and not self.over:
                self.news.clear()
                await self.news.wait()
            prompt = self.hear()

    def hear(self) -> str | None:
        """All that was said meanwhile, as one text."""
        said = [self.messages.popleft() for _ in range(len(self.messages))]
        for one in said:
            emit("told", **short(one))
        return "\n\n".join(said) or None

    async def turn(self, prompt: str) -> None:
        """One prompt, up to the end of the model's work; raises `Failed`."""
        said: str | None = prompt
        while True:
            try:
                await self.attempt(said)
                said = self.cut_off()
                if said is None:
                    return None
                continue
            except RunCancelled as cancelled:
                self.keep(cancelled.all_messages())
                return None
            except Failed:
                raise
            except Exception as error:
                failure = failure_of(error)
                if failure.kind == "crashed":
                    logging.exception("The conversation failed.")
                await self.wait_for_another_try(failure)
            finally:
                self.run = None
                self.words.end()
            if self.interrupted:
                return None
            said = None  # it stands in the conversation already

    def cut_off(self) -> str | None:
        """What to say when the answer that ended the turn is not whole; raises `Failed` when the provider withheld it."""
        reason = getattr(self.history[-1], "finish_reason", None) if self.history else None
        if reason == "content_filter":
            raise Failed(Failure("crashed", "The provider withheld the model's answer (content filter)."))
        self.cuts = self.cuts + 1 if reason == "length" else 0
        return CUT_OFF if 0 < self.cuts <= MOST_CUTS else None

    async def wait_for_another_try(self, failure: Failure) -> None:
        self.failures += 1
        most = int(self.request["retries"])
        if not failure.again or self.failures > most:
            raise Failed(failure)
        delay = min(FIRST_DELAY * 2 ** (self.failures - 1), MOST_DELAY)
        delay = max(delay, failure.retry_after or 0.0)
        told = {"attempt": self.failures, "most": most, "delay_ms": int(delay * 1000)}
        emit("retry", **told, status=failure.status, said=failure.said[:2000])
        until = time.monotonic() + delay
        while not self.interrupted and (left := until - time.monotonic()) > 0:
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), left)

    async def attempt(self, prompt: str | None) -> None:
        limits = UsageLimits(request_limit=None)
        async with self.agent.iter(prompt, message_history=self.history or None, usage_limits=limits) as run:
            self.run = run
            async for node in run:
                if Agent.is_model_request_node(node):
                    await self.request_answer(node)
                elif Agent.is_call_tools_node(node):
                    self.keep(run.all_messages())
                    await self.use_tools(node)
        self.keep(run.all_messages())

    async def request_answer(self, node: Any) -> None:
        if (said := self.hear()) is not None:
            node.request.parts = [*node.request.parts, UserPromptPart(said)]
        most = self.request["max_turns"]
        if most and self.answers >= most:
            raise Failed(Failure("turn_limit", f"The model has answered {self.answers} times."))
        history = self.run.all_messages()
        self.keep(history if history and history[-1] is node.request else [*history, node.request])
        self.requests += 1
        number = self.requests
        async with node.stream(self.run.ctx) as answer:
            counted_at = 0.0
            try:
                async for event in answer:
                    self.hear_word(event)
                    # Some tell at once what the prompt costs.
                    if (now := time.monotonic()) - counted_at > 1.0:
                        counted_at = now
                        self.count(number, answer.response)
            finally:
                self.words.end()
                self.count(number, answer.response)
        self.failures = 0
        self.answers += 1

    def hear_word(self, event: Any) -> None:
        if event.event_kind == "part_start" and event.part.part_kind in ("text", "thinking"):
            self.words.add(event.part.part_kind, event.part.content or "")
        elif event.event_kind == "part_delta" and event.delta.part_delta_kind in ("text", "thinking"):
            self.words.add(event.delta.part_delta_kind, event.delta.content_delta or "")
        elif event.event_kind == "part_end":
            self.words.end()

    def count(self, number: int, response: Any) -> None:
        """The tokens of this request until now: what came from the cache or went into it is no other input."""
        usage = response.usage
        if not usage.has_values():
            return
        cached, written = usage.cache_read_tokens, usage.cache_write_tokens
        counts = {
            "input": max(0, usage.input_tokens - cached - written),
            "output": usage.output_tokens,
            "cache_read": cached,
            "cache_write": written,
            "cache_write_1h": usage.cache_write_1h_tokens,
            "thinking": usage.output_reasoning_tokens,
        }
        if (number, counts) != self.counted:
            self.counted = (number, counts)
            emit("usage", request=f"{self.mark}-{number}", model=response.model_name, counts=counts)

    async def use_tools(self, node: Any) -> None:
        written: dict[str, str] = {}  # call -> the path that it changed
        async with node.stream(self.run.ctx) as events:
            async for event in events:
                kind = event.event_kind
                if kind == "function_tool_call":
                    call = event.part
                    with contextlib.suppress(ValueError):
                        arguments = call.args_as_dict()
                        emit("tool", id=call.tool_call_id, name=call.tool_name, input=smaller(arguments))
                elif kind == "function_tool_result":
                    result, call_id = event.part, event.part.tool_call_id
                    said = result.model_response_str()
                    failed = getattr(result, "outcome", "failed") != "success"
                    failed = failed or (result.tool_name == "run_command" and bool(BAD_END.search(said)))
                    about = {"error": failed, "files": [written[call_id]] if call_id in written else []}
                    emit("tool_end", id=call_id, name=result.tool_name, **about, **short(said))
                elif kind == "capability" and event.kind in CHANGES:
                    written[event.tool_call_id] = event.path


async def told_lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=MOST_SAID)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    return reader


async def converse() -> int:
    reader = await told_lines()
    conversation = Conversation(json.loads(await reader.readline()))
    asides = [asyncio.create_task(conversation.listen(reader)), asyncio.create_task(conversation.beat())]
    try:
        await conversation.talk()
    except Failed as failed:
        failure = failed.failure
        until = math.ceil(time.time() + failure.retry_after) if failure.retry_after else None
        emit("failed", kind=failure.kind, status=failure.status, until=until, said=failure.said[:4000])
        return 1
    finally:
        for one in asides:
            one.cancel()
    return 0


def main() -> NoReturn:
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.ERROR)
    code = asyncio.run(converse())
    sys.stdout.flush()
    os._exit(code)  # threads of the SDKs are not waited for


if __name__ == "__main__":
    main()
