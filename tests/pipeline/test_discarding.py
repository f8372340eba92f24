"""A working copy that is small goes at once; what is large, or cannot be looked into, goes by a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import conf, kinds
from pipeline.models import Process
from pipeline.processes import copies
from pipeline.services import processes
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)


def discarded(key: str) -> Process:
    return processes.prepare("discard", project=factories.project(), request={"copy": key})


def made(key: str, files: int) -> Path:
    copy: Path = conf.copy_path(key)
    copy.mkdir(parents=True)
    for number in range(files):
        (copy / str(number)).write_text("x")
    return copy


def test_a_small_copy_is_gone_without_a_child() -> None:
    copy = made("a" * 20, 20)
    process = discarded("a" * 20)
    assert processes.launch(process.pk)
    process.refresh_from_db()
    assert (process.state, process.pid, process.exit["outcome"]) == ("handled", None, "exited")
    assert kinds.result(process)["result"]["deleted"] == [str(conf.trash_path("a" * 20))]
    assert not copy.exists() and not conf.trash_path("a" * 20).exists()
    assert not processes.launch(process.pk), "once"


def test_a_large_one_and_a_stubborn_one_are_for_the_chore(monkeypatch: pytest.MonkeyPatch) -> None:
    made("b" * 20, 30)
    monkeypatch.setattr(copies, "SMALL_ENTRIES", 30)
    process = discarded("b" * 20)
    handler = kinds.handler_of(process)
    assert handler.at_once(process) is None
    monkeypatch.setattr(copies, "SMALL_ENTRIES", 2000)

    def refuses(_folder: Path) -> None:
        raise PermissionError("a file that may not be deleted")

    monkeypatch.setattr("pipeline.handlers.discard.delete_tree", refuses)
    assert handler.at_once(process) is None
    assert conf.trash_path("b" * 20).exists(), "out of use, and the chore deletes it"
