"""The model, the tools and the failures of the direct-API runtimes' agent (api_agent): everything that pydantic-ai and its harness are asked for."""

import contextlib
import importlib
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_ai import Agent, exceptions
from pydantic_ai.capabilities import Hooks, LocalWorkspace
from pydantic_ai_harness.compaction import ClearToolResults
from pydantic_ai_harness.filesystem import FileSystem
from pydantic_ai_harness.repair_tool_arguments import RepairToolArguments
from pydantic_ai_harness.shell import Shell

READING = ("read_file", "list_directory", "search_files", "find_files", "check_command")  # never asked about
SHELL_TOOLS = ("run_command", "start_command", "check_command", "stop_command")
# Where each API's model and provider stand; imported when it is known which one is wanted.
APIS = {
    "openai": ("openai", "OpenAIResponsesModel", "OpenAIProvider"),
    "openai-chat": ("openai", "OpenAIChatModel", "OpenAIProvider"),
    "gemini": ("google", "GoogleModel", "GoogleProvider"),
    "anthropic": ("anthropic", "AnthropicModel", "AnthropicProvider"),
}
READ_SECONDS = 600.0  # without a byte of the provider's; the server's inactivity limit is shorter
COMMAND_SECONDS = 120.0  # of a command whose agent asks for no other limit
TOOL_TRIES = 10  # wrong uses of one tool in a row
OUTPUT_CHARACTERS = 30_000  # of a command's output that the model is told
COMPACT_AT = 0.7  # of the model's context
INSTRUCTIONS = """\
You are a software engineer at work in a git repository, with the tools that are offered. Look at the code before you change it, keep to
its conventions, change what the task needs and nothing else, and try what you changed. Paths are relative to the working directory, which
is the repository's root. Nobody answers questions while you work. When you are done, say in a few sentences what you changed.
"""

Ask = Callable[[str, dict[str, Any]], Awaitable[str]]


def make_model(api: str, name: str, base_url: str, key: str) -> Any:
    module, model, provider = APIS[api]
    maker = getattr(importlib.import_module(f"pydantic_ai.providers.{module}"), provider)
    made = maker(api_key=key or "none", base_url=base_url)
    return getattr(importlib.import_module(f"pydantic_ai.models.{module}"), model)(name, provider=made)


def make_agent(model: Any, *, tools: Sequence[str], instructions: str, ask: Ask | None) -> Any:
    """`tools`: the names of those that are offered. `ask`: called before what changes something; its answer is why not, or empty."""
    here = Path.cwd()
    shell = [one for one in SHELL_TOOLS if one in tools]
    files = [one for one in tools if one not in SHELL_TOOLS]
    capabilities = [
        # Its commands get our environment, in which there is no key.
        LocalWorkspace(here, env=dict(os.environ)),
        FileSystem(content_hashes=False, read_only_patterns=["**/.git"], tools=files, max_retries=TOOL_TRIES),
        ClearToolResults(max_fraction=COMPACT_AT),
        RepairToolArguments(),
    ]
    if shell:
        capabilities.append(
            Shell(
                denied_commands=[],
                default_timeout=COMMAND_SECONDS,
                max_output_chars=OUTPUT_CHARACTERS,
                tools=shell,
            )
        )
    if ask is not None:
        capabilities.append(_asking(ask))
    return Agent(
        model,
        instructions=f"{INSTRUCTIONS}\n{instructions}".strip(),
        capabilities=capabilities,
        # We try again ourselves, so that it is seen.
        model_settings={"cache": True, "max_retries": 0, "timeout": READ_SECONDS},
        retries=TOOL_TRIES,
    )


def _asking(ask: Ask) -> Any:
    hooks = Hooks()

    async def before(_ctx: Any, *, call: Any, tool_def: Any, args: dict[str, Any]) -> dict[str, Any]:
        if call.tool_name not in READING:
            refusal = await ask(call.tool_name, call.args_as_dict())
            if refusal:
                raise exceptions.ToolFailed(refusal)
        return args

    hooks.on.before_tool_execute(before)
    return hooks


# ---------------------------------------------------------------- what went wrong

KINDS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.ModelQuotaExceededError, "billing"),
    (exceptions.ModelAuthenticationError, "auth"),
    (exceptions.ModelNotFoundError, "bad_model"),
    (exceptions.ModelContextWindowExceededError, "context_full"),
    (exceptions.ModelRateLimitError, "rate_limited"),
    (exceptions.ModelUnavailableError, "overloaded"),
    (exceptions.ModelServerError, "overloaded"),
    (exceptions.ModelConnectionError, "overloaded"),
    (exceptions.ModelRequestTimeout, "overloaded"),
    (exceptions.ModelRequestRejectedError, "config"),
)
PASSING = ("rate_limited", "overloaded")  # another try may do
MOST_PATIENCE = (
    60.0  # seconds; a provider that wants more is left alone, and the story waits without an agent
)


@dataclass(frozen=True)
class Failure:
    """`retry_after`: seconds by the provider, None where it says nothing. `again`: whether another try may do."""

    kind: str
    said: str
    status: int | None = None
    retry_after: float | None = None
    again: bool = False


def failure_of(error: Exception) -> Failure:
    status = getattr(error, "status_code", None)
    after = getattr(error, "retry_after", None) or _retry_delay(getattr(error, "body", None))
    said = _said(error)
    kind = next((kind for known, kind in KINDS if isinstance(error, known)), "")
    if kind == "config" and "credit balance" in said.lower():
        kind = "billing"
    if not kind and isinstance(error, exceptions.ModelAPIError):
        # Told within a stream, or with a status that means nothing by itself.
        kind = "config" if isinstance(status, int) and 400 <= status < 500 else "overloaded"
    passing = kind in PASSING and (after is None or after <= MOST_PATIENCE)
    if not kind and _is_broken(error):
        kind, passing = "overloaded", True
    return Failure(kind or "crashed", said, status, after, passing)


def _retry_delay(body: object) -> float | None:
    """How long Google wants to be left alone: it says so within the body alone."""
    inner = body.get("error") if isinstance(body, dict) else None
    details = inner.get("details") if isinstance(inner, dict) else None
    for one in details if isinstance(details, list) else []:
        delay = one.get("retryDelay") if isinstance(one, dict) else None
        if isinstance(delay, str) and delay.endswith("s"):
            with contextlib.suppress(ValueError):
                return float(delay[:-1])
    return None


def _said(error: Exception) -> str:
    """The provider's own words where it sent some."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    said = inner.get("message") if isinstance(inner, dict) else None
    status = getattr(error, "status_code", None)
    if isinstance(said, str) and said:
        return f"{said} (HTTP status {status})" if status else said
    return str(error) or type(error).__name__


def _is_broken(error: BaseException) -> bool:
    """Whether the connection broke off; some of the SDKs let that through as it is."""
    seen: BaseException | None = error
    while seen is not None:
        package = type(seen).__module__.partition(".")[0]
        if package in ("httpx", "httpx2", "httpcore", "httpcore2") or isinstance(seen, ConnectionError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
