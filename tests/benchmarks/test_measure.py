"""The arithmetic of the benchmarks: what they say must follow from what they measured."""

from pathlib import Path

import pytest

from tests.benchmarks.__main__ import table
from tests.benchmarks.floors import BareQueue
from tests.benchmarks.measure import Row, Sample, judged, percentile, ratio, take_turns, wait_for


def test_a_percentile_lies_between_its_two_neighbours() -> None:
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert (percentile([1, 2, 3], 0), percentile([1, 2, 3], 100)) == (1, 3)


def test_every_round_runs_every_case_once_and_the_first_is_dropped() -> None:
    ran: list[str] = []

    def case(name: str, seconds: float) -> Sample:
        def run() -> float:
            ran.append(name)
            return seconds

        return run

    found = take_turns({"one": case("one", 1.0), "two": case("two", 2.0)}, rounds=9)
    assert [set(ran[n : n + 2]) for n in range(0, 20, 2)] == [{"one", "two"}] * 10
    assert found == {"one": [1.0] * 9, "two": [2.0] * 9}
    assert len({tuple(ran[n : n + 2]) for n in range(0, 20, 2)}) == 2  # in both orders


def test_a_case_without_a_figure_of_its_own_is_timed_from_outside() -> None:
    assert 0 <= take_turns({"nothing": lambda: None}, rounds=1)["nothing"][0] < 1


def test_a_ratio_is_taken_round_by_round() -> None:
    row = ratio("c", "w", [2.0, 40.0, 6.0], [1.0, 20.0, 3.0], goal=2)
    assert row.verdict == "met" and row.reached.startswith("2.00 x (2.00 to 2.00)")
    assert ratio("c", "w", [3.0], [1.0], goal=2).verdict == "missed"


def test_an_uneven_machine_is_inconclusive_and_no_verdict() -> None:
    assert ratio("c", "w", [1.0, 1.0, 1.0, 9.0], [1.0] * 4, goal=2).verdict == "inconclusive"


def test_a_figure_at_its_goal_meets_it() -> None:
    assert (judged("c", "w", 5, 5, "5", "<= 5").verdict, judged("c", "w", 5.1, 5, "5.1", "<= 5").verdict) == (
        "met",
        "missed",
    )


def test_waiting_in_vain_names_what_was_waited_for() -> None:
    with pytest.raises(TimeoutError, match="in vain for a sign"):
        wait_for(lambda: False, "a sign", seconds=0)


def test_the_bare_queue_gives_each_job_out_once(tmp_path: Path) -> None:
    queue = BareQueue(tmp_path / "jobs.sqlite3", jobs=5)
    assert [queue.claim() for _ in range(5)] == [1, 2, 3, 4, 5]


def test_the_table_has_a_line_for_each_row() -> None:
    lines = table(
        [Row("start", "whole", "2 x", "<= 4 x", "met", "a note"), Row("start", "part", "1 ms")]
    ).splitlines()
    assert lines[2:] == ["| start | whole | 2 x; a note | <= 4 x | met |", "| start | part | 1 ms |  |  |"]
