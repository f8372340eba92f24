"""Claude Code's tool calls and their results, as a person reads them."""

from __future__ import annotations

from typing import Any

from .bounds import line_of, mapping, readable, text


def tool_summary(name: str, arguments: dict[str, Any]) -> tuple[str, str]:
    """A title of one line and the details of a call."""
    if name == "Bash":
        command = text(arguments.get("command"))
        return line_of(f"$ {command}"), command
    path = text(arguments.get("file_path"))
    if name == "Write" and path:
        return line_of(f"Write {path}"), text(arguments.get("content"))
    if name == "Edit" and path:
        old, new = text(arguments.get("old_string")), text(arguments.get("new_string"))
        return line_of(f"Edit {path}"), _signed("-", old) + _signed("+", new)
    if name == "Read" and path:
        lines = {key: arguments[key] for key in ("offset", "limit") if key in arguments}
        return line_of(f"Read {path}"), readable(lines) if lines else ""
    if name in ("Glob", "Grep"):
        return line_of(f"{name} {text(arguments.get('pattern'))}"), readable(arguments)
    return line_of(name or "tool"), readable(arguments)


def result_text(content: object) -> str:
    """The text of a message's or a tool result's content, whatever its form."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return "" if content is None else readable(content)
    parts = []
    for one in content:
        block = mapping(one)
        kind = text(block.get("type"))
        parts.append(text(block.get("text")) if kind == "text" else f"[{kind or 'unknown'}]")
    return "\n".join(parts)


def _signed(sign: str, block: str) -> str:
    return "".join(f"{sign}{line}\n" for line in block.splitlines())
