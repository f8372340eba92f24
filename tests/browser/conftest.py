"""A real browser and the real server (`up`) for the tests of this folder."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from pipeline.processes import control, spawn

ROOT = Path(__file__).resolve().parents[2]
QUIET = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-extensions",
)


@pytest.fixture
def login_link(tmp_path: Path) -> Iterator[str]:
    """`up` in a data folder of its own, on a free port; the link that it prints. At the end nothing of it runs any more."""
    home = tmp_path / "data"
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HUSKIES_", "PYTEST_", "DJANGO_"))
    }
    env |= {
        "HUSKIES_HOME": str(home),
        "HUSKIES_BIND": "127.0.0.1:0",
        "DATABASE_URL": "",
        "HUSKIES_UNCONFINED": "1",
        "PYTHONUNBUFFERED": "1",
    }
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "up"],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield find_link(server)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        finally:
            server.kill()
            server.communicate()
            end_agents(home / "runs")


def find_link(server: subprocess.Popen[bytes], seconds: float = 60) -> str:
    assert server.stdout is not None
    said, deadline = b"", time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(server.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(deadline - time.monotonic()):
                piece = os.read(server.stdout.fileno(), 65536)
                said += piece
                if found := re.search(rb"http://\S+/login-link/\S+/(?=\s)", said):
                    return found[0].decode()
                if not piece:
                    break
    raise AssertionError(f"`up` printed no link to log in:\n{said.decode(errors='replace')}")


def end_agents(runs: Path) -> None:
    """Agents outlive the server on purpose; those of this test are asked to end, and their end is awaited."""
    keys = [folder.name for folder in runs.iterdir()] if runs.is_dir() else []
    for key in keys:
        if spawn.runner_alive(runs, key):
            try:
                control.ask(
                    runs, key, {"version": 1, "do": "stop", "grace": 0.1, "reason": "the test is over"}
                )
            except control.ControlUnavailable:
                continue  # it ended by itself meanwhile
    deadline = time.monotonic() + 20
    while left := [key for key in keys if spawn.runner_alive(runs, key)]:
        assert time.monotonic() < deadline, f"still running: {left}"


@pytest.fixture
def page(chromium_program: Path) -> Iterator[Page]:
    """A page that fails its test on an error in the console and on a request that leaves this machine."""
    flags = [*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium_program), args=flags)
        context = browser.new_context()
        context.on(
            "request",
            lambda request: (
                None
                if urlsplit(request.url).hostname in ("127.0.0.1", None)
                else complaints.append(request.url)
            ),
        )
        context.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        opened = context.new_page()
        opened.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield opened
        browser.close()
    assert complaints == []
