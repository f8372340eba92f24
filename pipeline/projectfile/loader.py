"""Text to YAML nodes, for text that anybody with access to the branch may have written.

The nodes keep their lines. No object is ever constructed, tags are refused, and size, depth, number of nodes
and what aliases expand to are bounded, so that a hostile file costs little time and memory.
"""

from __future__ import annotations

from typing import Any, NoReturn

import yaml

from pipeline.projectfile.problems import Problem, ProjectFileError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 24
MAX_NODES = 20_000


def load_nodes(text: str) -> yaml.Node | None:
    """The root node of the one YAML document in `text`, None when there is no document.

    Raises ProjectFileError when the text is too large, is not YAML, or uses what is refused here.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        _refuse(1, 1, f"The file is {size:,} bytes, and at most {MAX_BYTES:,} are read; make it smaller.")
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        _refuse(line, column, f"The character #x{_code(error):04x} is not allowed in YAML; remove it.")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        _refuse(line, column, f"The file is not valid YAML here: {said}.")
    except (ValueError, OverflowError, IndexError):
        # PyYAML lets these out for an escape beyond Unicode ("\UFFFFFFFF") or a giant number after %YAML.
        mark = loader.get_mark() if loader else None
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        _refuse(line, column, "The file is not valid YAML here: an escape or a number is out of range.")
    finally:
        if loader is not None:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, bounded."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0
        # How many nodes an anchor stands for; None while it is open (an alias to it would be a loop).
        self._sizes: dict[str, int | None] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            size = self._sizes.get(str(event.anchor), 1)
            if size is None:
                _refuse(*_place(event), f"The alias *{event.anchor} stands inside itself; write it out.")
            self._count(size, event)
            return super().compose_node(parent, index)
        if event.tag is not None:
            _refuse(*_place(event), f"The tag {event.tag} is not allowed; write the value without it.")
        if self._depth >= MAX_DEPTH:
            _refuse(*_place(event), f"The file is nested deeper than {MAX_DEPTH} levels; make it flatter.")
        before = self._nodes
        self._count(1, event)
        if event.anchor is not None:
            self._sizes[event.anchor] = None
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._sizes[event.anchor] = self._nodes - before
        return node

    def _count(self, nodes: int, event: yaml.Event) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            message = f"The file has more than {MAX_NODES:,} values, aliases written out; make it smaller."
            _refuse(*_place(event), message)


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _code(error: yaml.reader.ReaderError) -> int:
    return ord(error.character) if isinstance(error.character, str) else int(error.character)


def _refuse(line: int, column: int, message: str) -> NoReturn:
    raise ProjectFileError([Problem(line, column, "", message)])
