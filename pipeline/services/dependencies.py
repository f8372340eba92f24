"""What a story waits for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def unmet(story_ids: Collection[int]) -> dict[int, list[Any]]:
    return {}


def promote(project_id: int) -> int:
    return 0
