"""Text that both databases can store: PostgreSQL takes no NUL, neither takes half a character."""

from __future__ import annotations

from pipeline.exceptions import BadInput


def storable(text: str, what: str) -> str:
    """`text` as it is. Raises BadInput, which names `what` and not the text: it may be anything, and long."""
    if "\x00" in text:
        raise BadInput(f"The {what} holds a NUL character, which cannot be stored. Remove it and try again.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"The {what} is not valid UTF-8 at character {error.start + 1}. Save it as UTF-8 and try again."
        ) from error
    return text
