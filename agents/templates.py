"""The places in an agent's `prompt` and `system_prompt` that each session fills."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

NAMES: Final = ("story_id", "worktree_path", "base_branch")
_PLACE = re.compile(r"\{\{\s*(" + "|".join(NAMES) + r")\s*\}\}")


def filled(template: str, values: Mapping[str, str]) -> str:
    """`values`: by NAMES. Other double braces stay as they are, and what was filled in is not looked at again."""
    return _PLACE.sub(lambda found: values[found[1]], template)
