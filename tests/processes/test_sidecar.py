"""The sidecar, a real process between a client and an upstream: what it lets through, with which key, and how fast."""

import contextlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from pipeline.processes import sidecars
from tests.processes.origins import KEY, TOKEN, Begin, Origin, ask, begin, fixed, origin

__all__ = ["begin", "origin"]  # fixtures


@pytest.mark.parametrize(
    ("target", "fields", "seen"),
    [
        ("/v1/messages", {"x_api_key": TOKEN}, f"x-api-key: {KEY}"),
        ("/v1/messages", {"Authorization": f"Bearer {TOKEN}"}, f"authorization: Bearer {KEY}"),
        ("/v1beta/models/m:stream?alt=sse", {"x_goog_api_key": TOKEN}, f"x-goog-api-key: {KEY}"),
        ("/openai/x?api-version=1", {"api_key": TOKEN}, f"api-key: {KEY}"),
        (f"/v1beta/models/m?alt=sse&key={TOKEN}", {}, f"/v1beta/models/m?alt=sse&key={KEY} "),
    ],
    ids=["x-api-key", "bearer", "google", "azure", "query"],
)
def test_the_key_takes_the_tokens_place(
    origin: Origin, begin: Begin, target: str, fields: dict[str, str], seen: str
) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    status, data, _ = ask(port, target=target, body=b"hello", **fields)
    assert (status, data, origin.bodies) == (200, b'{"ok": true}', [b"hello"])
    (head,) = origin.heads
    assert seen.lower() in head.lower() and TOKEN not in head
    assert f"host: 127.0.0.1:{origin.port}" in head.lower()


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/v1/messages", {}),
        ("/v1/messages", {"x_api_key": "sk-something-else"}),
        ("/v1/messages", {"Authorization": f"Basic {TOKEN}"}),
        ("/v1/messages", {"Authorization": f"Bearer {TOKEN}x"}),
        ("/v1/messages?key=", {"Cookie": TOKEN}),
    ],
)
def test_without_the_token_nothing_reaches_the_provider(
    origin: Origin, begin: Begin, target: str, fields: dict[str, str]
) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    status, data, _ = ask(port, target=target, **fields)
    assert status == 401
    assert "does not carry this session's token" in json.loads(data)["error"]["message"]
    assert origin.connections == 0


def test_other_log_ins_that_a_request_carries_go_no_further(origin: Origin, begin: Begin) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    ask(
        port,
        target="/v1/m?key=other&a=b",
        x_api_key=TOKEN,
        Authorization="Bearer mine",
        Cookie="c",
        Proxy_Authorization="p",
    )
    (head,) = origin.heads
    assert "mine" not in head and "cookie" not in head.lower() and "proxy" not in head.lower()
    assert head.startswith("POST /v1/m?a=b HTTP/1.1\r\n")


def test_a_base_url_with_a_path_is_a_border(origin: Origin, begin: Begin) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}/team/v1/")
    assert ask(port, target="/team/v1/messages", x_api_key=TOKEN)[0] == 200
    for beyond in (
        "/admin",
        "/team/v1x",
        "/team/v1/../admin",
        "/team/v1/%2e%2e/admin",
        "/team/v1/..%2fadmin",
        "/team/v1\\..\\x",
    ):
        assert ask(port, target=beyond, x_api_key=TOKEN)[0] == 403, beyond
    assert [head.split()[1] for head in origin.heads] == ["/team/v1/messages"]


def test_an_answer_arrives_piece_by_piece(origin: Origin, begin: Begin) -> None:
    """Each event is with the client before the provider says the next."""
    go_on = threading.Semaphore(0)

    def stream(connection: socket.socket, head: str) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(5):
            piece = b"data: %d\n\n" % number
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            assert go_on.acquire(timeout=20)
        connection.sendall(b"0\r\n\r\n")

    origin.answer = stream
    connection = http.client.HTTPConnection(
        "127.0.0.1", begin(base_url=f"http://127.0.0.1:{origin.port}"), timeout=20
    )
    connection.request("POST", "/v1/messages", body=b"{}", headers={"x-api-key": TOKEN})
    answer = connection.getresponse()
    for number in range(5):
        assert answer.readline() == b"data: %d\n" % number
        assert answer.readline() == b"\n"
        go_on.release()
    assert answer.read() == b""
    connection.close()


def test_a_request_is_passed_on_while_it_is_still_being_made(origin: Origin, begin: Begin) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(
        f"POST /v1/m HTTP/1.1\r\nHost: x\r\nx-api-key: {TOKEN}\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    deadline = time.monotonic() + 20
    client.sendall(b"5\r\nhello\r\n")
    while not origin.heads and time.monotonic() < deadline:
        time.sleep(0.002)
    assert origin.heads, "the head waits for the end of the body"
    client.sendall(b"1;x=y\r\n!\r\n0\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert origin.bodies == [b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n"]
    client.close()


def test_big_bodies_pass_both_ways(origin: Origin, begin: Begin) -> None:
    big = os.urandom(3 << 20)
    origin.answer = fixed(big)
    status, data, _ = ask(begin(base_url=f"http://127.0.0.1:{origin.port}"), body=big[::-1], x_api_key=TOKEN)
    assert (status, data == big, origin.bodies == [big[::-1]]) == (200, True, True)


def test_many_requests_share_their_connections(origin: Origin, begin: Begin) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(10):
        connection.request("POST", "/v1/m", body=b"{}", headers={"x-api-key": TOKEN})
        assert connection.getresponse().read() == b'{"ok": true}'
    connection.close()
    assert origin.connections == 1


def test_sixteen_at_once(origin: Origin, begin: Begin) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    meet = threading.Barrier(16)

    def together(connection: socket.socket, head: str) -> None:
        meet.wait(timeout=20)
        fixed(b"done")(connection, head)

    origin.answer = together
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(port, x_api_key=TOKEN)[1])) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [b"done"] * 16


@pytest.mark.parametrize("status", ["401 Unauthorized", "429 Too Many Requests", "529 Overloaded"])
def test_a_refusal_of_the_provider_comes_back_as_it_is(origin: Origin, begin: Begin, status: str) -> None:
    origin.answer = fixed(b'{"type":"error"}', status, "retry-after: 7\r\nrequest-id: r1\r\n")
    code, data, answer = ask(begin(base_url=f"http://127.0.0.1:{origin.port}"), x_api_key=TOKEN)
    assert (code, data) == (int(status[:3]), b'{"type":"error"}')
    assert (answer.headers["retry-after"], answer.headers["request-id"]) == ("7", "r1")


def test_a_stream_that_breaks_breaks_for_the_client_too(origin: Origin, begin: Begin) -> None:
    def half(connection: socket.socket, head: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        connection.shutdown(socket.SHUT_RDWR)

    origin.answer = half
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        ask(begin(base_url=f"http://127.0.0.1:{origin.port}"), x_api_key=TOKEN)


def test_an_agent_that_hangs_up_ends_the_providers_work(origin: Origin, begin: Begin) -> None:
    gone = threading.Event()

    def long(connection: socket.socket, head: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        assert connection.recv(1) == b""
        gone.set()

    origin.answer = long
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(f"GET /v1/m HTTP/1.1\r\nHost: x\r\nx-api-key: {TOKEN}\r\n\r\n".encode())
    while b"hi" not in client.recv(1000):
        pass
    client.close()
    assert gone.wait(20)


def test_a_provider_that_cannot_be_reached_is_told_and_asked_again(begin: Begin) -> None:
    free = sidecars.free_port()
    port = begin(base_url=f"http://127.0.0.1:{free}")
    status, data, _ = ask(port, x_api_key=TOKEN)
    assert status == 502
    assert (
        json.loads(data)["error"]["message"]
        == f"huskies: 127.0.0.1:{free} cannot be reached: Connection refused."
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/m HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/m HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"POST /v1/m HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
        b"POST /v1/m HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST /v1/m HTTP/1.1\nContent-Length: 3\r\n\r\n",
        b"POST /v1/m HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"POST /v1/m HTTP/2\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_two_readers_could_read_differently_is_refused(origin: Origin, begin: Begin, raw: bytes) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(raw.replace(b"\r\n\r\n", f"\r\nx-api-key: {TOKEN}\r\n\r\n".encode(), 1))
    assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
    client.close()
    assert origin.connections == 0


def test_bytes_that_are_no_http_harm_nobody(origin: Origin, begin: Begin) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    for junk in (
        b"",
        b"\r\n\r\n",
        b"\x16\x03\x01" * 100,
        b"A" * 100_000,
        b"GET / HTTP/1.1\r\nX: \xff\x00\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            with contextlib.suppress(OSError):
                client.sendall(junk)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1000):
                    pass
    assert ask(port, x_api_key=TOKEN)[0] == 200


# ------------------------------------------------------------------------------- encrypted


def certified(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for `name` that vouches for itself, and its key."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(private, hashes.SHA256())
    )
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.write_bytes(private.private_bytes(*form))
    return certificate, key


@pytest.mark.parametrize("trusted", [True, False])
def test_a_provider_is_spoken_to_encrypted_and_must_prove_who_it_is(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    certificate, key = certified(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    other, _ = certified(tmp_path, "elsewhere.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate if trusted else other))
    origin = Origin(context)
    port = begin(base_url=f"https://localhost:{origin.port}")
    status, data, _ = ask(port, x_api_key=TOKEN)
    if trusted:
        assert (status, data) == (200, b'{"ok": true}') and KEY in origin.heads[-1]
    else:
        assert status == 502 and b"certificate verify failed" in data and origin.heads == []
    origin.close()


# ------------------------------------------------------------------------------- what others see of it


def test_the_key_stands_in_no_argument_environment_or_file_and_others_cannot_look_into_it(
    origin: Origin, begin: Begin
) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    ask(port, x_api_key=TOKEN)
    process = begin.process  # type: ignore[attr-defined]
    proc = Path(f"/proc/{process.pid}")
    assert KEY.encode() not in (proc / "cmdline").read_bytes()
    assert proc.stat().st_uid == 0  # the kernel's sign for a process that may not be looked into
    if os.geteuid():
        with pytest.raises(PermissionError):
            (proc / "environ").read_bytes()
        with pytest.raises(PermissionError):
            (proc / "mem").open("rb")
    else:
        assert KEY.encode() not in (proc / "environ").read_bytes()


def test_it_listens_on_loopback_only(origin: Origin, begin: Begin) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    found = [words[1] for words in lines if words[1].endswith(f":{port:04X}") and words[3] == "0A"]
    assert found == [f"0100007F:{port:04X}"]
