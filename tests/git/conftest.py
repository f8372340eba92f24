"""A project on a checked-out repository, and one on a bare one."""

from pathlib import Path

import pytest

from tests.git.repositories import Project, Repository


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def alice(tmp_path: Path) -> Repository:
    """Alice's repository, with `main` checked out: two commits, a folder, an executable and a link."""
    made = Repository.create(tmp_path / "alice")
    made.write({"run.sh": "#!/bin/sh\n"})
    (made.path / "run.sh").chmod(0o755)
    (made.path / "link").symlink_to("README")
    made.commit({"README": "hello\n", ".gitignore": "*.log\n"}, "first")
    made.commit({"src/a.txt": "one\ntwo\nthree\nfour\nfive\n", "src/b.txt": "b\n"}, "second")
    return made


@pytest.fixture
def project(home: Path, alice: Repository) -> Project:
    """A project on Alice's checked-out repository."""
    return Project(home, alice.path)


@pytest.fixture
def bare(tmp_path: Path, alice: Repository) -> Repository:
    """A bare repository with Alice's history."""
    alice.git("clone", "-q", "--bare", str(alice.path), str(tmp_path / "bare.git"))
    return Repository(tmp_path / "bare.git")
