"""The site's settings in a test run: its own data folder and database, nothing of this machine's settings.

Each process of the run (the one that was called, every worker of pytest-xdist) imports this and gets its own.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from huskies_site.environment import load_env_file
from tests import databases

# What the tests themselves are told by environment; every other setting of the calling shell stays outside.
KEPT = ("HUSKIES_TEST_", "HUSKIES_CLAUDE", "HUSKIES_CHROMIUM")


def take_own_folder() -> Path:
    """Make this process's data folder; it goes when the process ends, not when a fork of it ends."""
    folder = Path(tempfile.mkdtemp(prefix="huskies-test-"))
    owner = os.getpid()

    @atexit.register
    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    return folder


def forget_settings_of_this_machine() -> None:
    """Drop the settings of the calling shell, and blank those that a .env file would bring in behind them."""
    for name in [name for name in os.environ if name.startswith("HUSKIES_") and not name.startswith(KEPT)]:
        del os.environ[name]
    os.environ["DATABASE_URL"] = ""
    known = set(os.environ)
    load_env_file(Path(__file__).resolve().parents[1] / ".env")
    for name in set(os.environ) - known:
        os.environ[name] = ""


forget_settings_of_this_machine()
home = take_own_folder()
os.environ["HUSKIES_HOME"] = str(home)
os.environ["HUSKIES_PREFLIGHT"] = "no"  # real programs start where a test says so; its children inherit this
os.environ["DJANGO_SETTINGS_MODULE"] = "huskies_site.settings"  # for the children that tests start
if databases.chosen() == "postgresql":
    os.environ["DATABASE_URL"] = databases.postgresql_url()

from huskies_site.settings import *  # noqa: E402, F403
from huskies_site.settings import DATABASES  # noqa: E402

# SQLite's test database is a file, not memory: several processes and threads of a test open it.
DATABASES["default"]["TEST"] = {
    "NAME": databases.run_database() if databases.chosen() == "postgresql" else str(home / "test.sqlite3")
}
