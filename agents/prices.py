"""What tokens cost, by the table `prices.yaml` beside this file."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import yaml

TABLE = Path(__file__).with_name("prices.yaml")
KINDS = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
PER = Decimal(1_000_000)

# "claude-sonnet-4-5-20250929", "claude-sonnet-4-5@20250929", "claude-opus-5-5[1m]"
_DATED = re.compile(r"[-@]\d{8}$")
_WINDOW = re.compile(r"\[[^\]]*\]$")

Prices = Mapping[str, Decimal]


@functools.cache
def table() -> dict[str, Prices]:
    """Prices by model and kind, in USD per million tokens."""
    raw = yaml.safe_load(TABLE.read_text(encoding="utf-8"))["models"]
    return {name: {kind: Decimal(str(prices[kind])) for kind in KINDS} for name, prices in raw.items()}


@functools.cache
def dearest() -> Prices:
    """The highest price of each kind, whichever model it belongs to."""
    return {kind: max(prices[kind] for prices in table().values()) for kind in KINDS}


def canonical(model: str) -> str:
    """The name of a model without a date and without a window size."""
    return _DATED.sub("", _WINDOW.sub("", model))


def is_listed(model: str | None) -> bool:
    return bool(model) and canonical(str(model)) in table()


def cost(model: str | None, usage: Mapping[str, int]) -> Decimal:
    """The price in USD of token counts by kind; `cache_write` includes its `cache_write_1h`."""
    prices = table().get(canonical(model or ""), dearest())
    long_lived = max(0, usage.get("cache_write_1h", 0))
    counts = {
        "input": usage.get("input", 0),
        "output": usage.get("output", 0),
        "cache_read": usage.get("cache_read", 0),
        "cache_write": max(0, usage.get("cache_write", 0) - long_lived),
        "cache_write_1h": long_lived,
    }
    return sum((prices[kind] * max(0, count) for kind, count in counts.items()), Decimal(0)) / PER
