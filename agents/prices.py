"""What tokens cost, by the table `prices.yaml` beside this file and the one of this server (HUSKIES_PRICES), which adds models and replaces them."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from django.conf import settings

logger = logging.getLogger("huskies.prices")

TABLE = Path(__file__).with_name("prices.yaml")
KINDS = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
STANDS_FOR = {"cache_read": "input", "cache_write": "input", "cache_write_1h": "cache_write"}
"""The price of which kind holds for one that is left out."""
MICRO = Decimal("0.000001")
MOST = Decimal(100_000)
"""US dollars per million tokens that a file may name at most; more is a slip of the pen."""
MOST_BYTES = 1024 * 1024
OWN = "this server"

# "claude-sonnet-4-5-20250929", "claude-sonnet-4-5@20250929", "gpt-5.5-2026-04-23", "claude-opus-5-5[1m]"
_DATED = re.compile(r"[-@]\d{8}$|-\d{4}-\d{2}-\d{2}$")
_WINDOW = re.compile(r"\[[^\]]*\]$")

Prices = Mapping[str, Decimal]


class Rates(NamedTuple):
    """The prices of prompts of more than `above` tokens, as whole numbers of 1/`unit` of a USD per million tokens."""

    above: int
    unit: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int


def _rates(above: int, prices: Prices) -> Rates:
    unit = 10 ** max(0, *(-int(prices[kind].as_tuple().exponent) for kind in KINDS))
    return Rates(above, unit, *(int(prices[kind] * unit) for kind in KINDS))


class PricesUnreadable(ValueError):
    """A table of prices is not of the form of `prices.yaml`; the message says where."""


@dataclass(frozen=True, slots=True)
class Source:
    name: str
    url: str
    date: str
    note: str


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens by kind; `above`: (tokens of the prompt, the prices from one more on), the shortest first.

    `stated`: the kinds that the provider has a price for; the others cost as another kind (STANDS_FOR).
    """

    kinds: Prices
    above: tuple[tuple[int, Prices], ...] = ()
    source: str = OWN
    stated: frozenset[str] = frozenset(KINDS)
    _rates: tuple[Rates, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tiers = ((0, self.kinds), *self.above)
        object.__setattr__(self, "_rates", tuple(_rates(limit, prices) for limit, prices in tiers))

    def micro_dollars(self, usage: Mapping[str, int], prompt: int) -> int:
        """Rounded half to even. A dollar for a million tokens is a millionth of one for each, and whole numbers add up fast and exactly."""
        rates = self._rates[0]
        for tier in self._rates[1:]:
            if prompt > tier.above:
                rates = tier
        count = usage.get
        written, lasting = count("cache_write", 0), count("cache_write_1h", 0)
        total = (
            rates.input * count("input", 0)
            + rates.output * count("output", 0)
            + rates.cache_read * count("cache_read", 0)
        )
        if written or lasting:
            total += rates.cache_write * max(0, written - lasting) + rates.cache_write_1h * lasting
        whole, rest = divmod(total, rates.unit)
        return whole + (2 * rest > rates.unit or (2 * rest == rates.unit and whole & 1))

    def for_prompt(self, tokens: int) -> Prices:
        """The prices of a request with so long a prompt."""
        found = self.kinds
        for limit, prices in self.above:
            if tokens > limit:
                found = prices
        return found


@dataclass(frozen=True, slots=True)
class Table:
    """`problem`: why this server's own file does not count, "" when it does or there is none."""

    models: Mapping[str, Price]
    sources: Mapping[str, Source]
    dearest: Price
    problem: str = ""


DEFAULT_NAME = "prices.yaml"


def own_file() -> str:
    """Where this server's own prices stand, there or not: HUSKIES_PRICES, in the data folder unless it is a whole path."""
    return os.path.join(settings.HUSKIES_HOME, settings.HUSKIES_PRICES)  # noqa: PTH118 - looked at for every request of a model


@contextlib.contextmanager
def held() -> Iterator[None]:
    """In this thread the table of now holds until the end, for however many requests."""
    _holding.table = current()
    try:
        yield
    finally:
        _holding.table = None


class _Holding(threading.local):
    table: Table | None = None


_holding = _Holding()


def current() -> Table:
    """The table that holds now: a change of the server's file is seen at once, a broken one is told and the table without it holds."""
    if _holding.table is not None:
        return _holding.table
    path = own_file()
    try:
        seen = os.stat(path)  # noqa: PTH116
    except OSError as error:
        named = settings.HUSKIES_PRICES != DEFAULT_NAME
        return _built_in(f"{path} cannot be read ({error.strerror}).") if named else _built_in("")
    return _with_file(path, seen.st_mtime_ns, seen.st_size)


@functools.lru_cache(maxsize=4)
def _built_in(problem: str) -> Table:
    if problem:
        logger.error("This server's prices do not count. %s", problem, extra={"action": "prices_unreadable"})
    models, sources = read(TABLE.read_text(encoding="utf-8"))
    return Table(models, sources, _dearest(models), problem)


@functools.lru_cache(maxsize=4)
def _with_file(path: str, _changed: int, size: int) -> Table:
    """Cached by when the file was changed. Never raises: what is booked must be booked."""
    try:
        if size > MOST_BYTES:
            raise PricesUnreadable(f"it is longer than {MOST_BYTES} bytes")
        models, sources = read(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return _built_in(
            f"{path}: {error}. Correct it, or take it away; until then the built-in prices hold."
        )
    base = _built_in("")
    both = {**base.models, **models}
    return Table(both, {**base.sources, **sources}, _dearest(both))


def read(text: str) -> tuple[dict[str, Price], dict[str, Source]]:
    """(models, sources) of a table in YAML. Raises PricesUnreadable."""
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PricesUnreadable(f"it is not YAML ({' '.join(str(error).split())[:200]})") from None
    if (
        not isinstance(raw, dict)
        or not isinstance(raw.get("models"), dict)
        or set(raw) - {"models", "sources"}
    ):
        raise PricesUnreadable("it must be a mapping with `models` and, if wanted, `sources`")
    sources = _sources(raw.get("sources") or {})
    return {canonical(str(name)): _price(str(name), value) for name, value in raw["models"].items()}, sources


def _sources(raw: object) -> dict[str, Source]:
    if not isinstance(raw, dict):
        raise PricesUnreadable("`sources` must be a mapping")
    found = {}
    for name, one in raw.items():
        if not isinstance(one, dict) or set(one) - {"url", "date", "note"}:
            raise PricesUnreadable(f"source {str(name)[:100]} has `url`, `date` and `note`, nothing else")
        found[str(name)] = Source(str(name), *(str(one.get(key) or "") for key in ("url", "date", "note")))
    return found


def _price(model: str, raw: object) -> Price:
    name = f"model {model[:100]}"
    if not isinstance(raw, dict):
        raise PricesUnreadable(f"{name} must be a mapping of prices")
    tiers = raw.get("above") or []
    if not isinstance(tiers, list) or not all(isinstance(tier, dict) for tier in tiers):
        raise PricesUnreadable(f"{name}: `above` must be a list of mappings")
    above = []
    for tier in tiers:
        tokens = tier.get("tokens")
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
            raise PricesUnreadable(f"{name}: each of `above` needs `tokens`, a whole number")
        above.append((tokens, _kinds(name, {key: one for key, one in tier.items() if key != "tokens"})))
    if [tokens for tokens, _ in above] != sorted({tokens for tokens, _ in above}):
        raise PricesUnreadable(f"{name}: the tiers of `above` must rise")
    own = {key: one for key, one in raw.items() if key not in ("above", "source")}
    return Price(_kinds(name, own), tuple(above), str(raw.get("source") or OWN), frozenset(KINDS) & set(own))


def _kinds(name: str, raw: Mapping[Any, Any]) -> Prices:
    strange = [str(key)[:50] for key in raw if key not in KINDS]
    if strange:
        raise PricesUnreadable(f"{name}: {strange[0]} is no kind of token; there are {', '.join(KINDS)}")
    found: dict[str, Decimal] = {}
    for kind in KINDS:
        value = raw.get(kind)
        if value is None and kind in STANDS_FOR:
            found[kind] = found[STANDS_FOR[kind]]
            continue
        try:
            amount = (
                Decimal(str(value))
                if isinstance(value, int | float) and not isinstance(value, bool)
                else None
            )
        except InvalidOperation:
            amount = None
        if amount is None or not amount.is_finite() or not 0 <= amount <= MOST:
            raise PricesUnreadable(
                f"{name}: {kind} must be a number of US dollars per million tokens, 0 to {MOST}"
            )
        found[kind] = amount
    return found


def _dearest(models: Mapping[str, Price]) -> Price:
    """The highest price of each kind, whichever model it belongs to; for every length of a prompt at which one of them becomes dearer.

    Where a provider has no price for a kind, it has no such tokens: those models do not count for it.
    """
    limits = sorted({limit for price in models.values() for limit, _ in price.above})

    def highest(tokens: int) -> Prices:
        return {
            kind: max(
                (price.for_prompt(tokens)[kind] for price in models.values() if kind in price.stated),
                default=Decimal(0),
            )
            for kind in KINDS
        }

    found, last = [(0, highest(0))], highest(0)
    for limit in limits:
        if (prices := highest(limit + 1)) != last:
            found.append((limit, prices))
            last = prices
    return Price(found[0][1], tuple(found[1:]), "the dearest of all")


@functools.lru_cache(maxsize=256)
def canonical(model: str) -> str:
    """The name of a model without its provider, a date and a window size."""
    return _DATED.sub("", _WINDOW.sub("", model.rpartition("/")[2] or model))


def of(model: str | None) -> tuple[Price, bool]:
    """The price of a model, and whether it is its own: else that of the dearest."""
    table = current()
    price = table.models.get(canonical(model or ""))
    return (table.dearest, False) if price is None else (price, True)


def is_listed(model: str | None) -> bool:
    return of(model)[1]


def cost(model: str | None, usage: Mapping[str, int], prompt: int = 0) -> Decimal:
    """The price in USD, to the millionth, of token counts by kind; `cache_write` includes its `cache_write_1h`, `output` its thinking.

    `prompt`: the tokens of the request's whole prompt, which decide on its tier; 0 where that is not known.
    """
    return usd(of(model)[0].micro_dollars(usage, prompt))


def usd(micro_dollars: int) -> Decimal:
    return Decimal(micro_dollars).scaleb(-6)


def counted_as() -> str:
    """What a model without a price is counted as, for people."""
    kinds = current().dearest.kinds
    return f"price unknown, counted as the dearest: ${kinds['input']} in, ${kinds['output']} out per million tokens"
