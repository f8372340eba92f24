"""The sidecar as the way out: which hosts it reaches for an agent, and which it does not."""

import select
import socket
from typing import Any

import pytest

from pipeline.processes import sidecar_reach
from tests.processes.origins import KEY, TOKEN, Begin, Origin, ask, begin, origin

__all__ = ["begin", "origin"]  # fixtures


# ------------------------------------------------------------------------------- the list of hosts


def tunnel(port: int, target: str, say: bytes = b"") -> bytes:
    """What a CONNECT is answered; with `say` what the host behind it answers to that."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = client.recv(2000)
        if not say or b" 200 " not in answer:
            return answer
        client.sendall(say)
        client.shutdown(socket.SHUT_WR)
        parts = b""
        while data := client.recv(2000):
            parts += data
        return parts


def rule(host: str, port: int | None = None) -> dict[str, Any]:
    return {"host": host, "port": port}


def test_a_listed_address_is_reached_and_nothing_else(origin: Origin, begin: Begin) -> None:
    other = Origin()
    port = begin(allow=[rule("127.0.0.1", origin.port)])
    get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    assert tunnel(port, f"127.0.0.1:{origin.port}", get).endswith(b'{"ok": true}')
    for target in (
        f"127.0.0.1:{other.port}",
        f"127.0.0.2:{origin.port}",
        f"[::1]:{origin.port}",
        "1.1.1.1:443",
        "example.com:443",
    ):
        assert b"403" in tunnel(port, target, get).split(b"\r\n")[0], target
    assert other.connections == 0
    other.close()


def test_plain_http_goes_through_it_as_through_any_proxy(origin: Origin, begin: Begin) -> None:
    port = begin(allow=[rule("127.0.0.0/8", origin.port)])
    status, data, _ = ask(
        port, "GET", f"http://127.0.0.1:{origin.port}/a?b=c", body=None, Proxy_Authorization="x"
    )
    assert (status, data) == (200, b'{"ok": true}')
    assert origin.heads[0].startswith("GET /a?b=c HTTP/1.1\r\n") and "Proxy" not in origin.heads[0]
    assert ask(port, "GET", "http://10.0.0.1/", body=None)[0] == 403
    assert ask(port, "GET", "ftp://127.0.0.1/", body=None)[0] == 400


def test_a_listed_name_that_leads_to_a_private_address_is_refused_unless_that_is_listed_too(
    origin: Origin, begin: Begin
) -> None:
    target = f"localhost:{origin.port}"
    port = begin(allow=[rule("localhost", origin.port)])
    answer = tunnel(port, target)
    assert b"403" in answer and b"not an address of the internet" in answer
    assert origin.connections == 0
    port = begin(
        allow=[rule("localhost", origin.port), rule("127.0.0.1", origin.port), rule("::1", origin.port)]
    )
    assert tunnel(port, target, b"GET / HTTP/1.1\r\n\r\n").endswith(b'{"ok": true}')


@pytest.mark.parametrize(
    "address",
    [
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "100.64.0.1",
        "169.254.169.254",
        "fe80::1",
        "fd00::1",
        "0.0.0.0",
        "224.0.0.1",
    ],
)
def test_wrapped_and_private_addresses_are_no_addresses_of_the_internet(address: str) -> None:
    parsed = sidecar_reach._address(address)
    assert parsed is not None and not sidecar_reach._public(parsed)


def test_public_addresses_are(origin: Origin) -> None:
    for address in ("1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"):
        parsed = sidecar_reach._address(address)
        assert parsed is not None and sidecar_reach._public(parsed), address


@pytest.mark.parametrize(
    ("pattern", "host", "fits"),
    [
        ("example.com", "example.com", True),
        ("example.com", "a.example.com", False),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("example.com", "example.com.evil", False),
    ],
)
def test_names_fit_as_they_are_written(pattern: str, host: str, fits: bool) -> None:
    assert sidecar_reach._name_fits(pattern, host) is fits


def test_what_was_refused_is_told_once(begin: Begin) -> None:
    port = begin(allow=[rule("example.com")])
    for _ in range(3):
        assert b"403" in tunnel(port, "evil.example:443")
    assert b"403" in tunnel(port, "example.com:22")
    out = begin.process.stdout  # type: ignore[attr-defined]
    lines = [out.readline().decode().strip() for _ in range(2)]
    assert lines == [
        "evil.example:443 was not reached: the host is not on the agent's list of allowed hosts",
        "example.com:22 was not reached: the host is not on the agent's list of allowed hosts",
    ]
    assert not select.select([out], [], [], 0)[0]


def test_without_a_list_it_is_no_proxy(origin: Origin, begin: Begin) -> None:
    port = begin(base_url=f"http://127.0.0.1:{origin.port}")
    assert b"403" in tunnel(port, f"127.0.0.1:{origin.port}")
    assert ask(port, "GET", f"http://127.0.0.1:{origin.port}/", body=None, x_api_key=TOKEN)[0] == 403
    assert origin.connections == 0


def test_this_hosts_own_proxy_is_the_way_to_the_provider(
    origin: Origin, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its password stays outside of the agent's environment."""
    proxy = Origin()
    seen: list[str] = []

    def as_proxy(connection: socket.socket, head: str) -> None:
        seen.append(head)
        connection.sendall(b"HTTP/1.1 200 ok\r\n\r\n")
        with socket.create_connection(("127.0.0.1", origin.port)) as behind:
            behind.sendall(connection.recv(65536))
            connection.sendall(behind.recv(65536))

    proxy.answer = as_proxy
    monkeypatch.setenv("http_proxy", f"http://user:p%40ss@127.0.0.1:{proxy.port}")
    port = begin(base_url="http://provider.invalid/v1")
    assert ask(port, target="/v1/m", body=b"", x_api_key=TOKEN)[:2] == (200, b'{"ok": true}')
    assert seen[0].startswith("CONNECT provider.invalid:80 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpwQHNz" in seen[0]
    assert "Host: provider.invalid\r\n" in origin.heads[0] + "\r\n" and KEY in origin.heads[0]
    proxy.close()
