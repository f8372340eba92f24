"""A copy of the start script in a folder of its own, with a PATH that holds only what a test puts there."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REAL_PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
TOOLS = ("cat", "cmp", "cp", "dirname", "id", "mkdir", "mv", "readlink", "rm", "sh")

# Writes down which lock it shall install: `uv pip install -q --python PYTHON --require-hashes -r LOCK`.
UV = """
for last; do :; done
printf '%s\\n' "${last##*/}" >>"$INSTALLS"
"""

MANAGE = """
import json, os, sys
print(json.dumps({"words": sys.argv[1:], "cwd": os.getcwd(), "prefix": sys.prefix}))
"""


@dataclass
class Doorstep:
    """`tree` holds the script, `path` is all of PATH, `installs` lists the locks that uv installed."""

    tree: Path
    path: Path
    installs: Path
    environment: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, body: str) -> Path:
        """Put a shell script on PATH under that name."""
        program = self.path / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        return program

    def put_python(self, name: str = "python3") -> None:
        self.put(name, f'exec "{REAL_PYTHON}" "$@"')

    def take(self, name: str) -> None:
        (self.path / name).unlink()

    def start(
        self, *words: str, script: Path | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [script or self.tree / "huskies", *words],
            cwd=cwd or self.tree,
            env={"PATH": str(self.path), "INSTALLS": str(self.installs), **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(
        self, *words: str, script: Path | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        with self.start(*words, script=script, cwd=cwd) as child:
            out, err = child.communicate(timeout=60)
        return subprocess.CompletedProcess(child.args, child.returncode, out, err)

    def installed(self) -> list[str]:
        return self.installs.read_text().split() if self.installs.exists() else []


def make_doorstep(folder: Path) -> Doorstep:
    """The script beside two small locks, with Python, git and uv on PATH; the folder's name has spaces."""
    tree, path = folder / "a tree with spaces", folder / "bin"
    tree.mkdir()
    path.mkdir()
    shutil.copy(ROOT / "huskies", tree)
    (tree / "manage.py").write_text(MANAGE)
    (tree / "requirements.lock").write_text("run==1\n")
    (tree / "requirements-dev.lock").write_text("run==1\ndev==1\n")
    for tool in TOOLS:
        found = shutil.which(tool, path=os.defpath + ":/usr/local/bin")
        assert found is not None, f"{tool} is part of every POSIX system"
        (path / tool).symlink_to(found)
    doorstep = Doorstep(tree, path, folder / "installs")
    doorstep.put_python()
    doorstep.put("git", "exit 0")
    doorstep.put("uv", UV)
    return doorstep
