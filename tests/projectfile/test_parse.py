from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest

from pipeline.projectfile import (
    Component,
    Gate,
    ProjectFile,
    ProjectFileError,
    SectionParser,
    parse,
    register_section,
    registered_sections,
)

WHOLE = """\
base_branch: trunk
default_qa: human
default_coder_model: sonnet
max_coders: 3
max_retries: 0
gate:
  command: make test
  timeout: 1h30m
  script: [ci/run, ./tools/]
  env: {CI: "1", LEVEL: 2, EMPTY: }
  output_limit: 10MiB
components:
  - name: web
    path: ./web/
    setup:
      - npm ci
      - [npm, run, build]
    teardown: docker compose down
    timeout: 5
  - name: api
setup_timeout: 90s
done_retention: 2
output_limit: 60MB
timezone: UTC
rate_limit_notifications: true
"""


def problems_of(text: str) -> list[tuple[int, str]]:
    with pytest.raises(ProjectFileError) as caught:
        parse(text, sections={})
    return [(problem.line, problem.path) for problem in caught.value.problems]


def message_of(text: str) -> str:
    with pytest.raises(ProjectFileError) as caught:
        parse(text, sections={})
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_every_key_is_read() -> None:
    assert parse(WHOLE, sections={}) == ProjectFile(
        base_branch="trunk",
        default_qa="human",
        default_coder_model="sonnet",
        max_coders=3,
        max_retries=0,
        gate=Gate(
            command="make test",
            timeout=timedelta(minutes=90),
            script=("ci/run", "tools/"),
            env={"CI": "1", "LEVEL": "2", "EMPTY": ""},
            output_limit=10 * 2**20,
        ),
        components=(
            Component(
                "web",
                "web",
                setup=("npm ci", ("npm", "run", "build")),
                teardown=("docker compose down",),
                timeout=timedelta(minutes=5),
            ),
            Component("api"),
        ),
        setup_timeout=timedelta(seconds=90),
        done_retention=timedelta(hours=2),
        output_limit=60_000_000,
        timezone="UTC",
        rate_limit_notifications=True,
    )


def test_whole_example_uses_every_field() -> None:
    """So that a new key cannot be forgotten in the example above."""
    file = parse(WHOLE, sections={}).to_json()
    default = ProjectFile.default().to_json()
    same = {key for key in default if file[key] == default[key]}
    assert same == {"timezone", "sections"}


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "~", "---\n", "{}", "\ufeff# with a byte order mark"]
)
def test_file_without_a_key_is_the_default(text: str, sections: Mapping[str, SectionParser]) -> None:
    assert parse(text, sections=sections) == ProjectFile.default(sections)


def test_defaults_are_those_of_the_seed() -> None:
    file = ProjectFile.default()
    assert (file.default_qa, file.max_retries, file.max_coders, file.gate) == ("server", 2, None, None)
    assert (file.done_retention, file.timezone) == (timedelta(hours=4), "UTC")
    assert Gate("true").timeout == timedelta(minutes=20)


def test_text_is_taken_as_written_whatever_yaml_makes_of_it() -> None:
    assert parse("base_branch: on", sections={}).base_branch == "on"
    assert parse("base_branch: 1.10", sections={}).base_branch == "1.10"
    assert parse("gate: {command: true}", sections={}).gate == Gate("true")


def test_line_is_run_by_the_shell_and_a_list_is_not() -> None:
    line = parse("gate: {command: a && b}", sections={}).gate
    words = parse("gate: {command: [a, '&&', b]}", sections={}).gate
    assert line is not None
    assert line.argv == ("sh", "-c", "a && b")
    assert words is not None
    assert words.argv == ("a", "&&", "b")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("20", timedelta(minutes=20)),
        ("20m", timedelta(minutes=20)),
        ("90s", timedelta(seconds=90)),
        ("1h 30m", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
    ],
)
def test_times_are_read(written: str, expected: timedelta) -> None:
    assert parse(f"setup_timeout: {written}", sections={}).setup_timeout == expected


@pytest.mark.parametrize(
    "line",
    [
        "base_branch: -x",
        "base_branch: a..b",
        "base_branch: refs/heads/x",
        "base_branch: a.lock",
        "base_branch: 'a b'",
        "base_branch: [main]",
        "base_branch:",
        'base_branch: "a\\nb"',
        'base_branch: "a\\0b"',
        'base_branch: "a\\ud800"',
        "default_qa: robot",
        "default_qa: [human]",
        "default_coder_model: --help",
        "default_coder_model: ' '",
        "max_coders: 0",
        "max_coders: many",
        "max_coders: 1.5",
        "max_coders: 99999999999999999999",
        "max_retries: -1",
        "max_retries: ٣",
        "gate: make test",
        "gate: []",
        "gate: {command: }",
        "gate: {command: []}",
        "gate: {command: -x}",
        "gate: {command: [-x, y]}",
        "gate: {command: [[a]]}",
        "gate: {command: {a: b}}",
        'gate: {command: "a\\0b"}',
        "gate: {command: x, timeout: soon}",
        "gate: {command: x, timeout: 0}",
        "gate: {command: x, timeout: 8d}",
        "gate: {command: x, timeout: '1:30'}",
        "gate: {command: x, timeout: ''}",
        "gate: {command: x, script: /etc/passwd}",
        "gate: {command: x, script: a/../../b}",
        "gate: {command: x, script: .git/hooks}",
        "gate: {command: x, script: ~/x}",
        "gate: {command: x, env: [A]}",
        "gate: {command: x, env: {1A: b}}",
        "gate: {command: x, env: {'': b}}",
        "gate: {command: x, env: {HUSKIES_SESSION: b}}",
        "gate: {command: x, env: {huskies_home: b}}",
        "gate: {command: x, env: {A: [b]}}",
        'gate: {command: x, env: {A: "\\0"}}',
        "gate: {command: x, output_limit: 1}",
        "gate: {command: x, output_limit: big}",
        "components: web",
        "components: {name: web}",
        "components: [web]",
        "components: [{path: web}]",
        "components: [{name: -x}]",
        "components: [{name: web, path: ..}]",
        "components: [{name: web, path: /srv}]",
        "components: [{name: web, setup: {a: b}}]",
        "components: [{name: web, setup: [-x]}]",
        "components: [{name: web, teardown: ''}]",
        "components: [{name: web, timeout: never}]",
        "components: [{name: web}, {name: web}]",
        "setup_timeout: 0s",
        "done_retention: -1",
        "output_limit: 1TB",
        "timezone: Middle/Earth",
        "timezone: ../etc/passwd",
        "rate_limit_notifications: maybe",
        "max_coderz: 3",
        "? [a]\n: b",
        "- a list",
        "just text",
        "a: 'open quote",
        "\tx: y",
        "x: y\n--- \nz: a",
        "base_branch: !!str main",
        "base_branch: !!python/object/apply:os.system [id]",
        "<<: {max_coders: 3}",
        'base_branch: "\\UFFFFFFFF"',
        "base_branch: *nowhere",
        "base_branch: a\x07b",
    ],
)
def test_wrong_value_is_one_sentence_with_its_line(line: str) -> None:
    """The line is written below two good ones, so that a line counted wrongly shows."""
    text = f"# a comment\n\n{line}\n"
    with pytest.raises(ProjectFileError) as caught:
        parse(text, sections={})
    (problem,) = caught.value.problems
    assert problem.line >= 3
    assert problem.line <= 2 + line.count("\n") + 2
    sentence = str(problem)
    assert sentence.startswith(f".huskies/project.yaml:{problem.line}: ")
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence
    assert len(sentence) < 500


def test_all_problems_are_told_at_once_in_the_order_of_the_lines() -> None:
    text = """\
max_coders: no
default_qa: robot
gate:
  comand: make
  timeout: soon
components:
  - name: web
  - path: /etc
  - name: web
    setup: [a, {b: c}]
"""
    assert problems_of(text) == [
        (1, "max_coders"),
        (2, "default_qa"),
        (4, "gate"),
        (4, "gate.comand"),
        (5, "gate.timeout"),
        (8, "components[1]"),
        (8, "components[1].path"),
        (9, "components[2].name"),
        (10, "components[2].setup[1]"),
    ]


def test_unknown_key_suggests_the_nearest_known_one() -> None:
    assert "did you mean `max_coders`?" in message_of("max_coder: 3")
    assert "did you mean `timeout`?" in message_of("gate: {command: x, time_out: 3}")
    assert "known here: base_branch, default_qa" in message_of("zzz: 3")


def test_key_written_twice_is_refused_with_the_first_line() -> None:
    message = message_of("max_coders: 1\nmax_retries: 1\nmax_coders: 2\n")
    assert message.startswith(
        ".huskies/project.yaml:3: `max_coders` stands here a second time (first on line 1)"
    )


def test_time_zone_of_this_machine_is_known() -> None:
    from zoneinfo import available_timezones

    names = sorted(available_timezones() - {"UTC"})
    if not names:
        pytest.skip("this machine has no time zone data")
    assert parse(f"timezone: {names[0]}", sections={}).timezone == names[0]


def test_registered_section_is_found_again(sections: Mapping[str, SectionParser]) -> None:
    before = registered_sections()
    parser = sections["agents"]
    register_section("a-test-section", parser)
    try:
        assert registered_sections() == {**before, "a-test-section": parser}
    finally:
        from pipeline.projectfile.sections import _registered

        _registered.pop("a-test-section")
