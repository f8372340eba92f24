"""The stand-in's HTTP server, on loopback only."""

from __future__ import annotations

import copy
import json
import re
import secrets
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from agents.standin.chat import Chat
from agents.standin.dialect import Dialect, Json
from agents.standin.gemini import Gemini
from agents.standin.messages import Messages
from agents.standin.responses import Responses
from agents.standin.script import Scenario, ScriptError, Spec, Turn, check_scenario, load_script

SCENARIO_PREFIX = re.compile(r"^/s/([A-Za-z0-9_.-]+)(/.*)?$")
SECRET_HEADERS = {"authorization", "x-api-key", "x-goog-api-key", "cookie"}
DIALECTS: tuple[type[Dialect], ...] = (Messages, Responses, Chat, Gemini)


class StandIn:
    """The server, a context manager. `url("name")` is the base URL of one scenario."""

    def __init__(self, script: object = None) -> None:
        self._lock = threading.Lock()
        self._records: list[Json] = []
        self.problems: list[str] = []  # turns that could not be played as written
        self._number = 0
        self._tag = secrets.token_hex(3)
        self._stopping = threading.Event()
        scenarios = load_script(script if script is not None else [])
        self._scenarios = {name: Scenario(name, spec) for name, spec in scenarios.items()}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.standin = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def add_scenario(self, name: str, spec: object) -> str:
        """Add or replace one scenario; returns its base URL."""
        checked = check_scenario(name, spec)
        with self._lock:
            self._scenarios[name] = Scenario(name, checked)
        return self.url(name)

    def url(self, scenario: str | None = None) -> str:
        base = f"http://127.0.0.1:{self._server.server_address[1]}"
        return f"{base}/s/{scenario}" if scenario else base

    def requests(self, kind: str | None = None, scenario: str | None = None) -> list[Json]:
        """Recorded requests with headers (keys masked) and body; kind is `model`, `side` or `other`."""
        with self._lock:
            return [
                copy.copy(one)
                for one in self._records
                if kind in (None, one["kind"]) and scenario in (None, one["scenario"])
            ]

    def left(self, scenario: str = "default") -> int:
        with self._lock:
            return len(self._scenarios[scenario].left)

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    # ---------------------------------------------------------------- for the handler

    def wait(self, seconds: float) -> None:
        """Until so much time has passed or the server stops."""
        self._stopping.wait(seconds)

    def next_mark(self) -> str:
        with self._lock:
            self._number += 1
            return f"fake{self._tag}{self._number:05d}"

    def scenario(self, name: str) -> Scenario | None:
        with self._lock:
            return self._scenarios.get(name)

    def record(self, entry: Json) -> None:
        with self._lock:
            self._records.append(entry)

    def pick(self, scenario: Scenario, request: Dialect) -> tuple[str, Turn]:
        """(`model` or `side`, turn): a request without tools, or for JSON, asks for a title or the like."""
        if not request.tools() or request.wants_json():
            return "side", {"text": "{}" if request.wants_json() else "ok"}
        with self._lock:
            return "model", scenario.take(request.newest())


def _dialect(path: str) -> type[Dialect] | None:
    """The dialect in which a path asks for a model; None if it asks for something else."""
    return next((one for one in DIALECTS if one.owns(path.rstrip("/"))), None)


class _Drop(Exception):
    """Break the connection in the middle of an answer."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    standin: StandIn

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_arguments: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        standin, path, name = self.server.standin, urlsplit(self.path).path, "default"
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if hit := SCENARIO_PREFIX.match(path):
            name, path = hit.group(1), hit.group(2) or "/"
        body = json.loads(raw) if raw else {}
        headers = {
            key.lower(): "(set)" if key.lower() in SECRET_HEADERS else value
            for key, value in self.headers.items()
        }
        entry = {"kind": "other", "scenario": name, "path": path, "headers": headers, "body": body}
        scenario, dialect = standin.scenario(name), _dialect(path)
        worded = dialect or Messages
        if scenario is not None and dialect is not None and not self._wrong_key(scenario):
            request = dialect(body, path)
            kind, turn = standin.pick(scenario, request)
            standin.record(entry | {"kind": kind})
            return self._play(scenario, request, turn)
        standin.record(entry)
        if scenario is None:
            return self._json(404, {"error": {"message": f"stand-in: no scenario {name!r}"}})
        if self._wrong_key(scenario):
            return self._json(401, worded.error_body({"status": 401, "message": "invalid x-api-key"}))
        known = path in ("", "/")
        return self._json(200 if known else 404, {} if known else worded.error_body({"status": 404}))

    def _wrong_key(self, scenario: Scenario) -> bool:
        wanted = scenario.spec.get("api_key")
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ").strip()
        given = (self.headers.get("x-api-key"), self.headers.get("x-goog-api-key"), bearer)
        return bool(wanted) and wanted not in given

    def _play(self, scenario: Scenario, request: Dialect, turn: Turn) -> None:
        standin = self.server.standin
        headers: Spec = {
            "request-id": "req_fake",
            **scenario.spec.get("headers", {}),
            **turn.get("headers", {}),
        }
        if "hang" in turn:
            standin.wait(float(turn["hang"]))
            self.close_connection = True
            return
        if "error" in turn:
            error = turn["error"] if isinstance(turn["error"], dict) else {"status": turn["error"]}
            if "retry_after" in error:
                headers["retry-after"] = error["retry_after"]
            return self._json(
                int(error["status"]), request.error_body(error), headers | error.get("headers", {})
            )
        try:
            answer = request.resolve(turn, scenario.spec, standin.next_mark())
        except ScriptError as problem:
            standin.problems.append(f"{scenario.name}: {problem}")
            return self._json(400, request.error_body({"status": 400, "message": f"stand-in: {problem}"}))
        if not request.streamed:
            return self._json(200, request.message(answer), headers)
        self.send_response(200)
        for key, value in {
            "Content-Type": "text/event-stream",
            "Transfer-Encoding": "chunked",
            **headers,
        }.items():
            self.send_header(key, str(value))
        self.end_headers()
        try:
            for name, data in request.events(answer):
                if name == "drop":
                    raise _Drop
                text = data if name == "raw" else request.frame(name, data)
                self._chunk(text.encode())
            self._chunk(b"")
        except _Drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _json(self, status: int, body: Json, headers: Spec | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": len(data),
            **(headers or {}),
        }.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
