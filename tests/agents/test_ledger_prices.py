"""What tokens cost: the built-in table, its tiers, this server's own file, and models that nobody knows."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from pytest_django import Settings

from agents import prices
from agents.prices import KINDS, cost


@pytest.fixture
def own(tmp_path: Path, settings: Settings) -> Path:
    """Where this server's own prices stand; nothing is there yet."""
    settings.HUSKIES_HOME = tmp_path
    return tmp_path / "prices.yaml"


def test_a_price_is_by_kind_and_model() -> None:
    usage = {"input": 400, "output": 70, "cache_read": 1000, "cache_write": 10}
    assert cost("claude-sonnet-5-5", usage) == Decimal("0.001625")
    assert cost("claude-sonnet-5-5", {"cache_write": 100_000, "cache_write_1h": 100_000}) == Decimal("0.4")
    assert cost("scripted", usage) == 0


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("claude-opus-4-5-20251101", "claude-opus-4-5"),
        ("claude-opus-4-5@20251101", "claude-opus-4-5"),
        ("claude-opus-4-5[1m]", "claude-opus-4-5"),
        ("gpt-5.5-2026-04-23", "gpt-5.5"),
        ("openai/gpt-5.5", "gpt-5.5"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
    ],
)
def test_a_dated_name_and_one_with_its_provider_cost_as_the_plain_one(name: str, same: str) -> None:
    million = {"input": 1_000_000}
    assert prices.is_listed(name) and cost(name, million) == cost(same, million) > 0


@pytest.mark.parametrize(
    ("model", "limit", "below", "above"),
    [
        ("gemini-2.5-pro", 200_000, "1.25", "2.5"),
        ("gpt-5.5", 272_000, "5", "10"),
        ("claude-haiku-5-5", 100_000, "0.1", "0.5"),
    ],
)
def test_a_long_prompt_costs_its_tier_for_all_of_its_tokens(
    model: str, limit: int, below: str, above: str
) -> None:
    million = {"input": 1_000_000}
    assert cost(model, million, prompt=limit) == Decimal(below)
    assert cost(model, million, prompt=limit + 1) == Decimal(above)


def test_every_price_names_a_source_with_a_date() -> None:
    table = prices.current()
    assert {price.source for price in table.models.values()} == set(table.sources)
    assert all(source.date >= "2026-11-01" for source in table.sources.values())
    for start in ("claude-", "gpt-", "gemini-", "qwen"):
        assert sum(name.startswith(start) for name in table.models) >= 10, start


def test_what_a_provider_has_no_price_for_costs_as_other_input() -> None:
    kinds = prices.current().models["gpt-5.5"].kinds
    assert kinds["cache_write"] == kinds["cache_write_1h"] == kinds["input"] == 5


def test_an_unknown_model_costs_the_dearest_of_each_kind_and_says_so() -> None:
    assert not prices.is_listed("mystery-9") and not prices.is_listed(None)
    table = prices.current()
    for kind in KINDS:
        for prompt in (0, 1_000_000):
            stated = [p.for_prompt(prompt)[kind] for p in table.models.values() if kind in p.stated]
            assert cost(
                "mystery-9",
                {"cache_write": 10**6, kind: 10**6} if kind.endswith("1h") else {kind: 10**6},
                prompt,
            ) == max(stated)
    assert prices.counted_as() == "price unknown, counted as the dearest: $30 in, $180 out per million tokens"


def test_this_servers_own_file_adds_and_replaces_and_is_read_again_when_it_changes(own: Path) -> None:
    assert prices.current().problem == "" and not prices.is_listed("house-model")
    own.write_text("models: {house-model: {input: 0, output: 0}, gpt-5.5: {input: 3, output: 4}}")
    assert cost("house-model", {"input": 10**6}) == 0 and cost("gpt-5.5", {"output": 10**6}) == 4
    assert prices.current().models["gpt-5.5"].source == prices.OWN
    assert cost("claude-opus-5-5", {"input": 10**6}) == 4, "the others stay"
    own.write_text("models: {house-model: {input: 1.5, output: 0}}")
    assert (
        cost("house-model", {"input": 10**6}) == Decimal("1.5") and cost("gpt-5.5", {"output": 10**6}) == 30
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not YAML"),
        ("[1]", "mapping with `models`"),
        ("models: {a: {input: 1}}", "output must be a number"),
        ("models: {a: {input: -1, output: 1}}", "0 to 100000"),
        ("models: {a: {input: .nan, output: 1}}", "0 to 100000"),
        ("models: {a: {input: yes, output: 1}}", "0 to 100000"),
        ("models: {a: {input: 1, output: 2, cheap: 1}}", "cheap is no kind of token"),
        ("models: {a: {input: 1, output: 2, above: [{input: 1, output: 1}]}}", "needs `tokens`"),
        (
            "models: {a: {input: 1, output: 2, above: [{tokens: 2, input: 1, output: 1}, {tokens: 1, input: 1, output: 1}]}}",
            "must rise",
        ),
        ("models: {a: 5}", "must be a mapping of prices"),
        ("sources: 5\nmodels: {}", "`sources` must be a mapping"),
        ("other: 1\nmodels: {}", "mapping with `models`"),
        ("&a [*a]", "mapping with `models`"),
    ],
)
def test_a_broken_file_is_told_and_the_built_in_prices_hold(own: Path, text: str, said: str) -> None:
    own.write_text(text)
    problem = prices.current().problem
    assert said in problem and str(own) in problem and "built-in prices hold" in problem
    assert cost("gpt-5.5", {"output": 10**6}) == 30


def test_a_file_that_is_named_and_not_there_is_told(own: Path, settings: Settings) -> None:
    settings.HUSKIES_PRICES = "others.yaml"
    assert "others.yaml cannot be read" in prices.current().problem
