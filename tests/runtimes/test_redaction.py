"""Secrets do not get through, however they are written and wherever they are cut."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.redaction import MOST_PRIVATE_KEY, Redactor, forms_of
from agents.runtimes import RUNTIMES
from agents.runtimes.base import Event
from agents.runtimes.lines import CONTINUED, GAP, HEAD, MOST_LINE, UNFINISHED
from tests.runtimes.records import STDOUT, Record

SECRET = 'p4ss/w+rd "ü" 9'
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\nMIIdef\n-----END RSA PRIVATE KEY-----"
WRITTEN = {
    "raw": SECRET,
    "json": json.dumps({"a": SECRET}),
    "json, not ASCII": json.dumps(SECRET, ensure_ascii=False),
    "json within json": json.dumps(json.dumps(SECRET)),
    "url": f"https://u:{quote(SECRET, safe='')}@example.com",
    "url, small letters": quote(SECRET, safe="").lower(),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 of user:secret": base64.b64encode(f"x:{SECRET}".encode()).decode(),
    "base64 of user:secret!": base64.b64encode(f"u:{SECRET}!".encode()).decode(),
    "base64 for urls": base64.urlsafe_b64encode(f"user:{SECRET}?".encode()).decode(),
    "hex": SECRET.encode().hex(),
}
FORMS = {
    "anthropic": "sk-ant-api03-AbCdEfGhIjKlMnOpQrSt",
    "openai": "sk-proj-" + "a1" * 20,
    "github": "ghp_" + "a1B2" * 9,
    "aws": "AKIA" + "ABCDEFGH12345678",
    "google": "AIza" + "x" * 35,
    "private key": KEY,
    "private key in json": json.dumps(KEY),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_a_known_value_is_masked_in_every_form(written: str) -> None:
    masked = Redactor([SECRET]).mask_text(f"before {written} after")
    assert "[redacted]" in masked
    assert masked.startswith("before ") and masked.endswith(" after")
    for part in ("p4ss", "cDRzc", "w+rd", "w%2Brd", "77232"):
        assert part not in masked


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_keys_of_well_known_forms_are_masked(form: str) -> None:
    masked = Redactor([]).mask_text(f"key={form};")
    assert masked.startswith("key=") and masked.endswith(";")
    assert "[redacted]" in masked and "MIIabc" not in masked and form[8:20] not in masked


DOCUMENT = " | ".join(["start", *WRITTEN.values(), *FORMS.values(), "end of an ordinary text"]).encode()


def test_a_cut_at_any_place_changes_nothing() -> None:
    whole = Redactor([SECRET]).mask(DOCUMENT)
    for place in range(len(DOCUMENT) + 1):
        redactor = Redactor([SECRET])
        got = redactor.feed(1, DOCUMENT[:place]) + redactor.feed(1, DOCUMENT[place:]) + redactor.flush(1)
        assert got == whole, place
    redactor = Redactor([SECRET])
    assert b"".join(redactor.feed(1, bytes([one])) for one in DOCUMENT) + redactor.flush(1) == whole


alphabet = st.sampled_from(
    [
        b"hunter22",
        b"hunt",
        b"er22",
        b"x" * 300,
        b"\n",
        b"sk-ant-",
        b"a1b2c3d4e5f6g7h8",
        KEY[:31].encode(),
        KEY[-29:].encode(),
    ]
)


@given(pieces=st.lists(alphabet, max_size=12), cut=st.integers(1, 500))
def test_pieces_are_masked_as_the_whole_is(pieces: list[bytes], cut: int) -> None:
    data = b"".join(pieces)
    redactor = Redactor(["hunter22"])
    parts = [redactor.feed(1, data[at : at + cut]) for at in range(0, len(data), cut)]
    got = b"".join(parts) + redactor.flush(1)
    assert got == Redactor(["hunter22"]).mask(data)
    assert b"hunter22" not in got


def test_streams_do_not_mix() -> None:
    redactor = Redactor(["hunter22"])
    out = redactor.feed(1, b"hunt") + redactor.feed(2, b"er22") + redactor.flush(1) + redactor.flush(2)
    assert out == b"hunter22"  # two halves on two streams are no secret


def test_little_is_held_back() -> None:
    redactor = Redactor(["hunter22"])
    assert len(redactor.feed(1, b"x" * 10_000)) > 9_000
    assert len(redactor.flush(1)) < 1_000


def test_a_private_key_without_an_end_does_not_swallow_the_log() -> None:
    data = KEY[:31].encode() + b"y" * (3 * MOST_PRIVATE_KEY)
    redactor = Redactor([])
    out = b"".join(
        redactor.feed(1, data[at : at + 10_000]) for at in range(0, len(data), 10_000)
    ) + redactor.flush(1)
    assert len(out) == len(b"[redacted]") + 2 * MOST_PRIVATE_KEY


def test_each_line_of_a_value_is_a_secret_and_short_words_are_not() -> None:
    redactor = Redactor(["line one\nline two", "yes", ""])
    assert redactor.mask(b"line two, yes") == b"[redacted], yes"
    assert (
        redactor.mask(b"disk-usage-report-generator-of-the-whole-machine")
        == b"disk-usage-report-generator-of-the-whole-machine"
    )


# -- in what programs print ------------------------------------------------------------------------------------------

CANARY = "hsk-canary-" + "0123456789abcdef" * 2
every_runtime = pytest.mark.parametrize("runtime", list(RUNTIMES))


def shown(events: list[Event]) -> str:
    return json.dumps([[event.kind, event.body] for event in events])


@every_runtime
def test_a_secret_in_a_line_of_two_records_is_masked_at_every_cut(runtime: str) -> None:
    line = json.dumps(
        {"type": "text", "kind": "text", "text": f"it is {CANARY}!", "body": {"text": CANARY}}
    ).encode()
    redact = Redactor([CANARY]).mask
    at = line.index(CANARY.encode())
    for stream in (STDOUT, 2):
        for cut in range(at + 6, at + len(CANARY), 3):
            parser = RUNTIMES[runtime].parser(None, redact)
            events = parser.feed(Record(stream, line[:cut], CONTINUED))
            assert CANARY[:10] not in shown(events), "what waits for its other half is stored encrypted"
            parser = RUNTIMES[runtime].parser(json.loads(json.dumps(parser.state())), redact)
            events += parser.feed(Record(stream, line[cut:]))
            said = shown(events)
            assert CANARY[:10] not in said and CANARY[-10:] not in said
            assert "[redacted]" in said or runtime != "command"


@every_runtime
@pytest.mark.parametrize("flags", [UNFINISHED, GAP])
def test_half_a_secret_whose_other_half_was_lost_is_masked(runtime: str, flags: int) -> None:
    for cut in range(6, len(CANARY)):
        parser = RUNTIMES[runtime].parser(None, Redactor([CANARY]).mask)
        events = parser.feed(
            Record(STDOUT, f"it is {CANARY[:cut]}".encode(), UNFINISHED if flags == UNFINISHED else CONTINUED)
        )
        events += parser.feed(Record(STDOUT, f"{CANARY[cut:]} it was".encode(), GAP if flags == GAP else 0))
        said = shown(events)
        assert CANARY[:cut] not in said, cut
        if flags == GAP and len(CANARY) - cut >= 6:
            assert CANARY[cut:] not in said, cut


def test_a_secret_at_the_cut_of_a_line_that_is_too_long_is_masked() -> None:
    for before in range(HEAD - len(CANARY) - 2, HEAD + 2):
        parser = RUNTIMES["command"].parser(None, Redactor([CANARY]).mask)
        line = b"x" * before + CANARY.encode() + b"y" * MOST_LINE
        events = [
            e
            for at in range(0, len(line), 65536)
            for e in parser.feed(Record(STDOUT, line[at : at + 65536], CONTINUED))
        ]
        said = shown(events + parser.feed(Record(STDOUT, b"end")))
        assert CANARY[:6] not in said, before


@given(form=st.sampled_from(sorted(WRITTEN)), before=st.binary(max_size=40), after=st.binary(max_size=40))
def test_no_form_gets_through_whatever_stands_beside_it(form: str, before: bytes, after: bytes) -> None:
    masked = Redactor([SECRET]).mask(before + b" " + WRITTEN[form].encode() + b" " + after)
    assert not any(one in masked for one in forms_of([SECRET]) if len(one) >= 8)
