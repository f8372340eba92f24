"""What can be wrong with a project file, told with the line it stands on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PROJECT_FILE = ".huskies/project.yaml"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong.

    `line` and `column` count from 1, `path` is the key's path such as `agents[2].role`.
    """

    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{PROJECT_FILE}:{self.line}: {self.message}"


class ProjectFileError(Exception):
    """The project file cannot be used; `problems` holds every reason, in the order of the lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
