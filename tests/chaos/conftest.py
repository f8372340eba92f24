"""The driver, loaded once for all tests of a worker, and a fresh data folder for each test."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import databases, factories
from tests.e2e.conftest import shop as shop  # a fixture here too
from tests.e2e.shop import CHECK, project_file, script, write

DRIVER = Path(__file__).with_name("driver.py")
TURN = [{"say": "I begin"}, write("a.txt", "a\n"), {"commit": "Add a"}, write("b.txt", "b\n")]


class Driver:
    """A process that runs jobs in forks of itself (driver.py)."""

    def __init__(self, folder: Path) -> None:
        self.template = folder
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        environment |= {
            "HUSKIES_HOME": str(folder / "unused"),
            "HUSKIES_LOG_LEVEL": "CRITICAL",
            "DATABASE_URL": "" if databases.chosen() == "sqlite" else databases.postgresql_url(),
        }
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder,
        )  # fmt: skip

    def job(self, plan: str, home: Path, repo: Path, **more: Any) -> tuple[int, dict[str, Any]]:
        """(exit code or minus the signal, what it said)."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(
            json.dumps({"plan": plan, "home": str(home), "repo": str(repo), **more}) + "\n"
        )
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the driver died"
        answer = json.loads(line)
        assert "error" not in answer["said"], answer["said"]["error"]
        return answer["status"], answer["said"]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


class Scene:
    """One test's data folder and repository, copied from the template."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        self.driver, self.home, self.repo = driver, folder / "data", folder / "shop"
        shutil.copytree(driver.template / "shop", self.repo)
        shutil.copytree(
            driver.template / "data",
            self.home,
            ignore=lambda _, names: [n for n in names if ".sqlite3" in n or n == "bell"],
        )
        # The backup API copies a consistent state, whatever still lies in the write-ahead log.
        with (
            closing(sqlite3.connect(driver.template / "data" / "huskies.sqlite3")) as source,
            closing(sqlite3.connect(self.home / "huskies.sqlite3")) as target,
        ):
            source.backup(target)

    def work(self, **more: Any) -> tuple[int, dict[str, Any]]:
        return self.driver.job("work", self.home, self.repo, **more)

    def delete(self, **more: Any) -> tuple[int, dict[str, Any]]:
        return self.driver.job("delete", self.home, self.repo, **more)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    made = Driver(tmp_path_factory.mktemp("template"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def template(driver: Driver) -> Driver:
    """With the first state of every scene in its folder."""
    folder = driver.template
    factories.repository(
        folder / "shop", {".huskies/project.yaml": project_file(), "check.sh": CHECK, "README.md": "hello\n"}
    )
    driver.job("prepare", folder / "data", folder / "shop", descriptions=[script(TURN)])
    return driver


@pytest.fixture
def scene(template: Driver, tmp_path: Path) -> Scene:
    return Scene(template, tmp_path)
