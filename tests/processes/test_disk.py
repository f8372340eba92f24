"""What folders hold on disk."""

import os
from pathlib import Path

from pipeline.processes.disk import held


def test_files_links_and_holes_are_counted_for_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/data").write_bytes(os.urandom(1_000_000))
    os.link(tmp_path / "a/data", tmp_path / "a/b/the same")
    (tmp_path / "a/elsewhere").symlink_to("/usr")
    with (tmp_path / "a/hole").open("wb") as file:
        file.truncate(10**12)
    (found,) = held([tmp_path, tmp_path / "none"])
    assert found.entries == 6
    assert 1_000_000 <= found.size < 1_200_000


def test_it_is_told_after_each_piece(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).write_bytes(b"x" * 5000)
    told = list(held([tmp_path], piece=20))
    assert [one.entries for one in told] == [20, 40, 50]
    assert told[0].size < told[1].size < told[2].size
