"""What every test has at hand, and how the run begins and closes. What a test may need is in needs.py."""

import json
import os
import random
import zlib
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from tests import databases, needs
from tests.agent_programs import CLAUDE, AgentProgram

LONG_REASON = "a long test: ./huskies test --long runs it"
OTHER_DATABASE = "belongs to the run with HUSKIES_TEST_DATABASE="


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long tests too, with random seeds")


# Before hypothesis's own hook reads its seed option.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    is_long = bool(config.getoption("--long"))
    # The workers of pytest-xdist inherit the environment and so the seed.
    os.environ.setdefault("HUSKIES_TEST_SEED", str(random.SystemRandom().randrange(2**32) if is_long else 0))
    hypothesis.settings.register_profile("plain", derandomize=True, deadline=None, database=None)
    hypothesis.settings.register_profile(
        "long", max_examples=1000, deadline=None, database=None, print_blob=True
    )
    hypothesis.settings.load_profile("long" if is_long else "plain")
    if is_long and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = os.environ["HUSKIES_TEST_SEED"]
    if databases.chosen() == "postgresql" and not hasattr(config, "workerinput"):
        databases.drop_leftovers()


def pytest_report_header(config: pytest.Config) -> list[str]:
    seed = os.environ["HUSKIES_TEST_SEED"]
    return [f"database: {databases.chosen()}", f"seed: {seed} (HUSKIES_TEST_SEED={seed} repeats it)"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("long") and not item.config.getoption("--long"):
        pytest.skip(LONG_REASON)
    for database in ("sqlite", "postgresql"):
        if item.get_closest_marker(f"on_{database}") and databases.chosen() != database:
            pytest.skip(OTHER_DATABASE + database)
    if databases.chosen() != "sqlite" and not uses_a_database(item):
        pytest.skip(OTHER_DATABASE + "sqlite")
    for need in needs.NEEDS:
        if item.get_closest_marker(need.marker) and (reason := need.missing()):
            pytest.skip(reason)


def uses_a_database(item: pytest.Item) -> bool:
    """Whether a test means something else on another database; the rest runs once, on the default one."""
    own = "chaos" in item.path.parts  # real servers, with databases that the tests make for them
    marked = item.get_closest_marker("django_db") or item.get_closest_marker("needs_postgresql")
    return bool(own or marked or {"db", "transactional_db"} & set(getattr(item, "fixturenames", ())))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is required, a test that is skipped for lack of something has failed."""
    report = yield
    if report.skipped and needs.everything_is_required() and needs.need_behind(reason_of(report)):
        report.outcome = "failed"
        report.longrepr = f"HUSKIES_TEST_REQUIRE=all, but this test {reason_of(report)}"
    return report


# Outermost, so that these lines come after pytest's own list of skips and just above its closing line.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """Count what was not run here, why, and how to have it run."""
    yield
    reasons = [reason_of(report) for report in terminalreporter.getreports("skipped")]
    by_need = Counter(need for need in map(needs.need_behind, reasons) if need)
    for need, count in by_need.items():
        example = next(reason for reason in reasons if need.skip_prefix in reason)
        obstacle = example.partition(need.skip_prefix)[2]
        who = f"{tests_word(count)} {'needs' if count == 1 else 'need'} {need.thing}"
        terminalreporter.write_line(f"Skipped here: {who} ({obstacle})")
    long_count = sum(LONG_REASON in reason for reason in reasons)
    if long_count:
        terminalreporter.write_line(f"Left for ./huskies test --long: {tests_word(long_count)}")
    other_count = sum(OTHER_DATABASE in reason for reason in reasons)
    if other_count:
        terminalreporter.write_line(f"Left for the run on the other database: {tests_word(other_count)}")
    write_counts(terminalreporter)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test was skipped; empty for an expected failure."""
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else ""


def tests_word(count: int) -> str:
    return f"{count} test" if count == 1 else f"{count} tests"


def write_counts(terminalreporter: pytest.TerminalReporter) -> None:
    """Leave the numbers in the file HUSKIES_TEST_COUNTS, for `./huskies test --long` adds up several runs."""
    path = os.environ.get("HUSKIES_TEST_COUNTS")
    if path:
        stats = terminalreporter.stats
        counts = {name: len(stats.get(name, [])) for name in ("passed", "failed", "skipped")}
        counts["failed"] += len(stats.get("error", []))
        Path(path).write_text(json.dumps(counts))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed of this test's own, from the run's and its name: the same in every plain run; printed."""
    base = int(os.environ["HUSKIES_TEST_SEED"])
    # Without the group that pytest-xdist's loadgroup appends, so that -n changes no seed.
    own = base ^ zlib.crc32(request.node.nodeid.partition("@")[0].encode())
    print(f"seed {own} (HUSKIES_TEST_SEED={base} repeats it)")
    return own


@pytest.fixture(scope="session")
def postgresql_url() -> str:
    """A PostgreSQL server where databases may be made; its test says needs_postgresql."""
    return databases.postgresql_url()


@pytest.fixture(scope="session")
def claude_program() -> Path:
    """The real Claude Code program; its test says needs_claude."""
    return real_program(CLAUDE)


def real_program(program: AgentProgram) -> Path:
    found = program.find()
    if found is None:
        pytest.fail(f"a test that uses {program.title} lacks the marker {program.marker}")
    return found


@pytest.fixture(scope="session")
def chromium_program() -> Path:
    """A Chromium to drive with Playwright (`executable_path`); its test says needs_browser."""
    program = needs.find_chromium()
    if program is None:
        pytest.fail("a test that uses chromium_program lacks the marker needs_browser")
    return program
