"""`python -m tests.benchmarks [--quick] [--only NAME] [--rounds N] [--json]`: each case in a process of its own, then the table."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests import databases
from tests.benchmarks import CASES
from tests.benchmarks.measure import Row

ROUNDS, QUICK = 15, 4
RESULT = "result: "
ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./huskies bench", description="Measure this machine and the server on it, side by side."
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK} rounds instead of {ROUNDS}: a look, not a figure"
    )
    parser.add_argument(
        "--only", action="append", choices=CASES, help="this case alone; may be given more than once"
    )
    parser.add_argument("--rounds", type=int, help="how many rounds, the dropped first one not counted")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # the child's word
    options = parser.parse_args()
    rounds = options.rounds or (QUICK if options.quick else ROUNDS)
    if options.case:
        return child(options.case, rounds)
    before = time.monotonic()
    rows, failed = [], []
    for case in options.only or CASES:
        print(f"{case} ...", file=sys.stderr, flush=True)
        found = run(case, rounds)
        rows += found
        failed += [] if found else [case]
    if options.as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print(f"\n{machine()}; {rounds} rounds; {time.monotonic() - before:.0f} s.\n\n{table(rows)}")
    for case in failed:
        print(f"The case {case} did not come to an end; its words are above.", file=sys.stderr)
    return 1 if failed else 0


def run(case: str, rounds: int) -> list[Row]:
    """One case in a process, data folder and environment of its own; nothing when it failed."""
    folder = Path(tempfile.mkdtemp(prefix="huskies-bench-"))
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HUSKIES_", "DATABASE_URL"))
    }
    env = {
        **kept, "HUSKIES_HOME": str(folder / "data"), "HUSKIES_SECRET_KEY": secrets.token_hex(32), "HUSKIES_SERVER_LIMIT": "1000",
        "HUSKIES_UNCONFINED": "yes", "DATABASE_URL": "", "DJANGO_SETTINGS_MODULE": "huskies_site.settings", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    if case == "unconfined":
        env["PATH"] = path_without("bwrap", folder / "bin")
    kept_open = contextlib.ExitStack()
    if case.endswith("_postgresql"):
        if obstacle := databases.postgresql_obstacle():
            return [Row(case, "not measured", obstacle)]
        os.environ["HUSKIES_TEST_DATABASE"] = "postgresql"
        env["DATABASE_URL"] = kept_open.enter_context(databases.own_database())
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks", "--case", case, "--rounds", str(rounds)],
            cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
        if done.returncode or not lines:
            print(
                (folder / "data.log").read_text()[-3000:]
                if (folder / "data.log").exists()
                else done.stdout[-3000:],
                file=sys.stderr,
            )
            return []
        return [Row(**row) for row in json.loads(lines[-1].removeprefix(RESULT))]
    finally:
        kept_open.close()
        shutil.rmtree(folder, ignore_errors=True)


def child(case: str, rounds: int) -> int:
    import django

    django.setup()
    rows = importlib.import_module(f"tests.benchmarks.{case.removesuffix('_postgresql')}").measure(rounds)
    print(RESULT + json.dumps([asdict(row) for row in rows]), flush=True)
    return 0


def path_without(program: str, folder: Path) -> str:
    """A PATH that finds all that the present one finds, except one program."""
    folder.mkdir(parents=True)
    for entry in os.environ.get("PATH", os.defpath).split(os.pathsep):
        for file in Path(entry).iterdir() if Path(entry).is_dir() else ():
            if file.name != program and not (folder / file.name).is_symlink():
                (folder / file.name).symlink_to(file.resolve() if file.is_symlink() else file)
    return str(folder)


def machine() -> str:
    """What it ran on, without naming it."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False).stdout.split()[-1]
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{os.cpu_count()} cores, {pages:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}, git {git}, load {load}"


def table(rows: list[Row]) -> str:
    lines = ["| case | what | reached | goal | verdict |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        reached = f"{row.reached}; {row.note}" if row.note else row.reached
        lines.append(f"| {row.case} | {row.what} | {reached} | {row.goal} | {row.verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
