from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.projectfile import (
    ProjectFileError,
    SectionParser,
    approvals_needed,
    gate_hash,
    gate_paths,
    parse,
)
from pipeline.projectfile.loader import MAX_BYTES, MAX_DEPTH

KEYS = (
    "base_branch default_qa default_coder_model max_coders max_retries gate command timeout script env components name "
    "path setup teardown setup_timeout done_retention output_limit timezone rate_limit_notifications agents role "
    "description runtime model prompt allowed_tools max_turns max_budget_usd inactivity_timeout credential base_url args"
).split()
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["coder-1", "scripted", "human", "20m", "5MB", "make test", "./x", "https://a.example", "main"]
    ),
)
DATA = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=25,
)
PIECES = """- |? |[|]|{|}|"|'|&a |*a|!!int |!x |#|---|...|%YAML 1.1|<<: |\\|\\U|\t|0x1f|1:30|~|: |>|,"""
SNIPPETS = st.sampled_from(
    [*(f"{key}:" for key in KEYS), *PIECES.split("|"), "|", "\n", "\n  ", "\ufeff", "\x85", "\u2028"]
)
FAST = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def survives(text: str, sections: Mapping[str, SectionParser]) -> None:
    """Either a file that can be stored, or problems that can be shown."""
    try:
        file = parse(text, sections=sections)
    except ProjectFileError as error:
        assert error.problems
        assert all(problem.line >= 1 and problem.column >= 1 for problem in error.problems)
        str(error).encode("utf-8")
    else:
        json.dumps(file.to_json(), allow_nan=False, ensure_ascii=False).encode("utf-8")
        approvals_needed(None, file)
        gate_paths(file)
        gate_hash(file)


@FAST
@given(text=st.text())
def test_any_text_gives_a_file_or_problems(text: str, sections: Mapping[str, SectionParser]) -> None:
    survives(text, sections)


@FAST
@given(parts=st.lists(SNIPPETS | st.text(max_size=4), max_size=30))
def test_any_heap_of_yaml_pieces_gives_a_file_or_problems(
    parts: list[str], sections: Mapping[str, SectionParser]
) -> None:
    survives("".join(parts), sections)


@FAST
@given(data=DATA)
def test_any_data_under_known_keys_gives_a_file_or_problems(
    data: object, sections: Mapping[str, SectionParser]
) -> None:
    survives(json.dumps(data), sections)
    survives(json.dumps({"agents": [{"name": "a", "runtime": "scripted", "script": [data]}]}), sections)
    survives(json.dumps({"gate": {"command": data, "script": data, "env": data}}), sections)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested deeper than"),
        ("- " * 100_000, "nested deeper than"),
        ("? " * 100_000, "nested deeper than"),
        ("{a: " * (MAX_DEPTH + 1), "nested deeper than"),
        ("a: b\n" * 40_000, "more than 20,000 values"),
        ("x" * (MAX_BYTES + 1), "at most 262,144 are read"),
        ("\u00e4" * (MAX_BYTES // 2 + 1), "at most 262,144 are read"),
        ("a: &a [*a]", "stands inside itself"),
        ("a: &a {b: [*a]}", "stands inside itself"),
    ],
)
def test_text_made_to_exhaust_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ProjectFileError) as caught:
        parse(text, sections={})
    (problem,) = caught.value.problems
    assert said in problem.message


def test_aliases_that_multiply_are_refused_before_they_are_written_out() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    with pytest.raises(ProjectFileError, match="aliases written out"):
        parse(bomb, sections={})


def test_alias_of_a_value_is_read(sections: Mapping[str, SectionParser]) -> None:
    file = parse("gate: {command: &t make test}\ncomponents: [{name: a, setup: [*t]}]", sections=sections)
    assert file.components[0].setup == ("make test",)


def test_nonsense_is_answered_briefly() -> None:
    text = "".join(f"key{number}: 1\n" for number in range(5_000))
    with pytest.raises(ProjectFileError) as caught:
        parse(text, sections={})
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1].line == 21
