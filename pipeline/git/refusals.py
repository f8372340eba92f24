"""What git's side of the house says no to, by name: a kind for the program, a sentence for the person."""

from typing import Any


class Refused(Exception):
    """Something about the repository stands in the way, and trying again would not help by itself.

    `kind` is one word that code may branch on, the message a sentence for a person, `data` the facts (JSON
    values)."""

    def __init__(self, kind: str, message: str, **data: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.data = data

    def to_json(self) -> dict[str, Any]:
        """The refusal as a chore prints it."""
        return {"kind": self.kind, "message": self.message, **self.data}


def listed(names: list[str], most: int = 5) -> str:
    """A few names for a sentence: `a, b and 3 more`."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"
