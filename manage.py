#!/usr/bin/env python3
"""Django's command line. People call it as `./huskies WORDS`, which makes the virtual environment first."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "huskies_site.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
    except ImportError:
        # Also reached when the Python that .venv was made with has been replaced by a newer one.
        sys.exit(
            f"huskies: {sys.executable} cannot import Django, so no command can run. Use ./huskies, which "
            "installs it; if ./huskies itself says this, remove the folder .venv and call it again."
        )
    if sys.argv[1:2] == ["test"]:
        # Before the settings are read: the tests have their own, and run on a machine whose .env is wrong.
        from huskies_site.management.commands.test import Command

        Command().run_from_argv(sys.argv)
    try:
        execute_from_command_line(["huskies", *sys.argv[1:]])
    except ImproperlyConfigured as error:
        sys.exit(f"huskies: {error}")


if __name__ == "__main__":
    main()
