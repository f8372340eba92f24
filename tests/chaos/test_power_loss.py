"""The database after a loss of power: the file as it was, and of the log of writes whatever had reached the disk."""

import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from django.db import connection, transaction

from pipeline.models import Act

COMMITS = 12
CUTS = 40


@pytest.mark.on_sqlite
@pytest.mark.django_db(transaction=True)
def test_after_a_loss_of_power_every_acknowledged_row_is_there_and_no_half_one(
    tmp_path: Path, seed: int
) -> None:
    """A commit is acknowledged when it is synced, so what may be missing is the end of the log behind the last one of these."""
    database = Path(connection.settings_dict["NAME"])
    log = database.with_name(f"{database.name}-wal")
    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA synchronous").fetchone() == (2,), "FULL: each commit is synced"
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    sizes = []
    for number in range(COMMITS):
        with transaction.atomic():  # two rows that belong together
            for half in ("one", "two"):
                Act.objects.create(actor="server", verb="test", subject=f"{number} {half}", why="x" * 3000)
        sizes.append(log.stat().st_size)
    lot = random.Random(seed)
    for cut in [*sizes, *(lot.randrange(sizes[0], sizes[-1]) for _ in range(CUTS))]:
        acknowledged = sum(size <= cut for size in sizes)
        rows, sound = read_copy(database, log, cut, tmp_path)
        assert sound == "ok"
        assert rows % 2 == 0 and rows >= 2 * acknowledged, (
            f"{rows} rows, {acknowledged} commits were acknowledged"
        )


def read_copy(database: Path, log: Path, cut: int, folder: Path) -> tuple[int, str]:
    """How many rows a copy holds whose log ends at `cut`, and whether it is sound."""
    copy = folder / "copy.sqlite3"
    for path in folder.glob("copy.sqlite3*"):
        path.unlink()
    shutil.copyfile(database, copy)
    (folder / "copy.sqlite3-wal").write_bytes(log.read_bytes()[:cut])
    opened = sqlite3.connect(copy)
    try:
        rows = opened.execute("SELECT count(*) FROM pipeline_act WHERE verb = 'test'").fetchone()[0]
        return rows, opened.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        opened.close()
