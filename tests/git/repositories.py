"""Real repositories in temporary folders, and the chores as the server does them."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.git.refusals import Refused
from pipeline.processes import chores, confine
from pipeline.processes.copies import copy_steps
from pipeline.processes.runfolder import ANSWER
from pipeline.processes.runner_files import carry_out

AUTHOR = {"name": "coder-1", "email": "coder-1@huskies.invalid"}
DATE = 1_700_000_000


def person_environment() -> dict[str, str]:
    """The environment of a person with a name and an otherwise empty configuration."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "Alice",
        "GIT_AUTHOR_EMAIL": "alice@example.com",
        "GIT_COMMITTER_NAME": "Alice",
        "GIT_COMMITTER_EMAIL": "alice@example.com",
    }


class Repository:
    """A repository in a folder, with a person (or an agent) at the keyboard."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, *options: str, branch: str = "main") -> "Repository":
        path.mkdir(parents=True, exist_ok=True)
        made = cls(path)
        made.git("init", "-q", f"--initial-branch={branch}", *options)
        return made

    def git(self, *arguments: str, stdin: bytes | None = None, ok: bool = True) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=person_environment(), input=stdin, capture_output=True
        )
        assert done.returncode == 0 or not ok, done.stderr.decode()
        return done.stdout.decode().strip()

    def write(self, files: dict[str, str | bytes | None]) -> None:
        for name, content in files.items():
            place = self.path / name
            if content is None:
                place.unlink()
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, files: dict[str, str | bytes | None], message: str = "change") -> str:
        self.write(files)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def tip(self, branch: str = "main") -> str:
        return self.git("rev-parse", f"refs/heads/{branch}")

    def status(self) -> str:
        return self.git("status", "--porcelain")


def key() -> str:
    return secrets.token_hex(10)


def chore(name: str, request: dict[str, Any]) -> dict[str, Any]:
    """Do a chore in this process; the answer must be JSON."""
    answer = chores.find_chore(name)(request)
    assert json.loads(json.dumps(answer)) == answer
    return answer


class Done(NamedTuple):
    """How a chore's process ended. `answer`: what it left in its run folder, {} = nothing."""

    code: int
    answer: dict[str, Any]
    errors: str

    @property
    def result(self) -> dict[str, Any]:
        return chores.answered(self.answer)


AS_CHILD = """\
import os, sys
sys.path.append(sys.argv[1])
from pipeline.processes.chores import as_child
as_child(sys.argv[2], dict(os.environ))
"""


def chore_program(name: str, request: Any, *, crash: str = "", **environment: str) -> Done:
    """Do a chore in a process of its own, as a runner's fork does it; `crash` names the point at which it is killed."""
    step = chores.chore_step(name, {})
    surroundings = step["env"] | environment | ({"HUSKIES_CRASH": crash} if crash else {})
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                AS_CHILD,
                str(Path(chores.__file__).parents[2]),
                step["chore"],
            ],
            input=json.dumps(request),
            env=surroundings,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        file = Path(folder) / ANSWER
        return Done(done.returncode, json.loads(file.read_text()) if file.exists() else {}, done.stderr)


def make(steps: list[dict[str, Any]]) -> None:
    """Carry the steps out as the runner does."""
    for step in steps:
        for operation in step.get("files", []):
            for _ in carry_out(operation):
                pass
        if "argv" in step:
            subprocess.run(step["argv"], cwd=step["cwd"], env=step["env"], check=True, capture_output=True)


class Project:
    """A data folder with a registered project: its own repository, the control repository, copies."""

    def __init__(self, home: Path, source: Path | str, kind: str = "path", base: str | None = None) -> None:
        self.home, self.source, self.kind = home, str(source), kind
        (home / "copies").mkdir(parents=True, exist_ok=True)
        self.control = home / "control" / f"{key()}.git"
        self.fetched = self.fetch(base_branch=base)
        self.base = self.fetched["base_branch"]
        self.format = self.fetched["object_format"]

    def towards(self, **more: Any) -> dict[str, Any]:
        return {"control": str(self.control), "source": self.source, "source_kind": self.kind, **more}

    def fetch(self, **more: Any) -> dict[str, Any]:
        return chore("fetch", self.towards(**more))

    def copy(
        self, commit: str | None = None, *, number: int = 1, resume_from: str | None = None
    ) -> Repository:
        place = self.home / "copies" / key()
        steps = copy_steps(
            self.control,
            place,
            branch=f"huskies/story-{number}",
            commit=commit or self.fetched["tip"],
            object_format=self.format,
            resume_from=resume_from,
            base_branch=self.base,
        )
        make(steps)
        return Repository(place)

    def intake_request(self, copy: Repository, *, confined: bool = False, **more: Any) -> dict[str, Any]:
        return {
            "control": str(self.control),
            "copy": str(copy.path),
            "branch": "huskies/story-1",
            "base": self.fetched["tip"],
            "key": copy.path.name,
            "message": "Work of the session",
            "author": AUTHOR,
            "confinement": self.confinement(copy) if confined else [],
            "strict_objects": not confined,
            **more,
        }

    def confinement(self, copy: Repository) -> Sequence[str]:
        return confine.confined(
            [],
            level="bubblewrap",
            writable=[copy.path],
            readable=[self.control],
            hidden=[self.home],
            network=False,
            cwd=copy.path,
        )

    def intake(self, copy: Repository, **more: Any) -> dict[str, Any]:
        return chore("intake", self.intake_request(copy, **more))

    def candidate_request(self, tip: str, merge: str, **more: Any) -> dict[str, Any]:
        return self.towards(
            base_branch=self.base, tip=tip, key=merge, message="Add it (#1)", author=AUTHOR, date=DATE, **more
        )

    def candidate(self, tip: str, merge: str | None = None) -> dict[str, Any]:
        return chore("candidate", self.candidate_request(tip, merge or key()))

    def land_request(self, planned: dict[str, Any]) -> dict[str, Any]:
        return self.towards(
            base_branch=self.base,
            expected=planned["base"],
            candidate=planned["candidate"],
            key=planned["ref"].rpartition("/")[2],
        )

    def land(self, planned: dict[str, Any]) -> dict[str, Any]:
        return chore("land", self.land_request(planned))

    def probe(self, candidate: str) -> dict[str, Any]:
        return chore("probe", self.towards(base_branch=self.base, candidate=candidate))

    def work(self, files: dict[str, str | bytes | None]) -> dict[str, Any]:
        """A session that changes some files, taken in."""
        copy = self.copy()
        copy.commit(files)
        answer = self.intake(copy)
        shutil.rmtree(copy.path)
        return answer


def refusal(error: Any) -> Refused:
    """The refusal inside pytest's exception info."""
    assert isinstance(error.value, Refused)
    return error.value
