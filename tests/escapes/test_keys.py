"""What a real agent program, told to steal, finds of its key; and what it reaches of the network."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from agents.models import Session
from agents.services import reaching
from pipeline import conf
from tests.agent_programs import AGENT_PROGRAMS, CLAUDE, programs
from tests.e2e.desk import KEY, Desk
from tests.logs import words

pytestmark = [pytest.mark.timeout(240)]

LOOT = (  # in one word: some programs refuse a command that they see reach outside
    "sh -c 'env > loot.txt; cat /proc/*/environ /proc/*/cmdline >> loot.txt 2>/dev/null; "
    'grep -rsaohE "sk-tes[t]-[0-9a-f]+" ~ $TMPDIR {own} >> loot.txt; true\''
)


def told(session: Session) -> str:
    return words(session.process)


def work(desk: Desk, command: str, **entry: Any) -> tuple[Session, str]:
    """A session in which the program runs one command; and what it left in loot.txt."""
    story = desk.start(desk.open([{"run": command}, "Done."], **entry))
    story = desk.until_stage(story, "done")
    (session,) = desk.shop.sessions(story)
    return session, (desk.repo / "loot.txt").read_text(errors="replace")


@programs(*AGENT_PROGRAMS)
def test_an_agent_finds_a_token_and_never_the_key(desk: Desk) -> None:
    session, loot = work(desk, LOOT.format(own=conf.home()))
    assert KEY not in loot
    assert KEY not in told(session) and reaching.token_of(session) not in told(session)
    assert reaching.key_note(session) == reaching.TOKEN_ONLY
    assert list((conf.session_path(session.key)).rglob("*.sock")) == []
    for file in (conf.runs() / session.key, conf.session_path(session.key)):
        for path in file.rglob("*"):
            if path.is_file():
                assert KEY.encode() not in path.read_bytes(), path


@programs(*AGENT_PROGRAMS)
def test_without_a_network_the_provider_still_answers_and_nothing_else(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        code = (
            "import socket\n"
            f"for name, way in (('by address', ('127.0.0.1', {port})), ('by another', ('1.1.1.1', 53)), ('by name', ('example.com', 443))):\n"
            "    try:\n        socket.create_connection(way, 5)\n        print(name, 'reached')\n"
            "    except OSError:\n        print(name, 'refused')\n"
            "print(open('/proc/net/dev').read())\n"
        )
        command = f"python3 - > loot.txt 2>&1 <<'END'\n{code}END\n"
        session, loot = work(desk, command, network="off")
        outside.settimeout(0)
        with pytest.raises(BlockingIOError):
            outside.accept()
    assert session.sandbox == "bubblewrap+network"
    assert loot.count("refused") == 3 and "reached" not in loot
    assert "lo:" in loot and "eth0" not in loot


@programs(CLAUDE)
def test_with_a_list_of_hosts_only_these_are_reached(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listed, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [one.getsockname()[1] for one in (listed, other)]
        code = (
            "import os, socket, urllib.parse as u\n"
            "way = u.urlsplit(os.environ['HTTPS_PROXY'])\n"
            f"for port in {ports}:\n"
            "    s = socket.create_connection((way.hostname, way.port))\n"
            "    s.sendall(b'CONNECT 127.0.0.1:%d HTTP/1.1\\r\\n\\r\\n' % port)\n"
            "    print(s.recv(100).split(b'\\r\\n')[0].decode())\n"
        )
        command = f"python3 - > loot.txt 2>&1 <<'END'\n{code}END\n"
        network = {"allow": [f"127.0.0.1:{ports[0]}"]}
        session, loot = work(desk, command, network=network)
        listed.settimeout(5)
        listed.accept()[0].close()
        other.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert loot.split("\n")[:2] == ["HTTP/1.1 200 Connection established", "HTTP/1.1 403 Forbidden"]
    assert f"127.0.0.1:{ports[1]} was not reached" in told(session)


@programs(CLAUDE)
def test_a_token_of_a_subscription_stays_with_the_server_too(desk: Desk) -> None:
    session, loot = work(desk, LOOT.format(own=conf.home()), kind="oauth_token")
    assert KEY not in loot
    assert f"CLAUDE_CODE_OAUTH_TOKEN={reaching.token_of(session)}" in loot
    assert reaching.key_note(session) == reaching.TOKEN_ONLY
