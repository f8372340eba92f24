"""Takes secrets out of output before it is stored or shown.

Known values are found as they are and in the forms in which programs print them: escaped for JSON (also
twice and three times) and for URLs, in base64 at each of the three alignments, in hexadecimal. Keys of well-known forms are
found by their pattern, private keys from their first line to their last. A value may be split over any
number of pieces: `feed` holds back what may be the beginning of one.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick, MatchKind

MASK = b"[redacted]"
SHORTEST = 6  # bytes; a shorter value would mask ordinary words
NESTED = 3  # JSON within JSON within JSON
LONGEST_KEY = 400  # bytes of a key that is known by its pattern only
MOST_PRIVATE_KEY = 64 * 1024  # bytes after which an unfinished private key is taken for something else

_PATTERNS = (
    rb"sk-ant-[A-Za-z0-9_-]{16,300}",
    rb"sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{32,300}",
    rb"sk-[A-Za-z0-9]{32,300}",
    rb"gh[pousr]_[A-Za-z0-9]{30,255}",
    rb"github_pat_[A-Za-z0-9_]{40,255}",
    rb"glpat-[A-Za-z0-9_-]{20,100}",
    rb"xox[abposr]-[A-Za-z0-9-]{20,200}",
    rb"(?:AKIA|ASIA)[A-Z0-9]{16}",
    rb"AIza[A-Za-z0-9_-]{35}",
)
# What every one of these, and the first line of a private key, holds. Nearly all output holds none of them and no known
# value, which one pass over it tells: 0.35 us per KiB, where a search for each takes 11 and the patterns take 35 (measured).
_HINTS = b"sk- ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- xox AKIA ASIA AIza -----BEGIN".split()
_KEY_BEGIN = rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----"
_KEY_END = re.compile(rb"-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----")
_KEY_END_BYTES = 80


class Redactor:
    """Masks in several streams at once; keep one for a process's whole output."""

    def __init__(self, secrets: Iterable[str]) -> None:
        literals = sorted(forms_of(secrets), key=lambda form: (-len(form), form))
        words = [re.escape(form) for form in literals]
        self._search = re.compile(b"|".join([*words, *_PATTERNS, b"(?P<begin>" + _KEY_BEGIN + b")"]))
        self._literals = literals
        self._hints = BytesAhoCorasick([*literals, *_HINTS])
        # Only this way of matching compares many bytes at a time: it is 15 times as fast (measured).
        self._any = BytesAhoCorasick([*literals, *_HINTS], matchkind=MatchKind.LeftmostFirst)
        self._reach = max([LONGEST_KEY, *(len(form) for form in literals)])
        self._waiting: dict[int, bytes] = {}
        # stream -> bytes of a private key that were swallowed so far
        self._inside: dict[int, int] = {}

    def suspects(self, data: bytes) -> bool:
        """Whether anything in it may have to be masked; if not, `mask` returns it as it is."""
        return bool(self._any.find_matches_as_indexes(data))

    def mask(self, data: bytes, cut: bool = False) -> bytes:
        """A complete text with everything masked; independent of what was fed.

        `cut`: something of it was lost before or after it, so the end of a known value at its beginning and the beginning
        of one at its end are masked too.
        """
        if self.suspects(data):
            data, _, _ = self._run(data, None, last=True)
        return self._without_halves(data) if cut else data

    def mask_text(self, text: str) -> str:
        return self.mask(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")

    def feed(self, stream: int, data: bytes) -> bytes:
        """What of `stream` can be shown after `data`; the rest follows with later calls."""
        buffer = self._waiting.pop(stream, b"") + data
        done, rest, inside = self._run(buffer, self._inside.pop(stream, None), last=False)
        self._keep(stream, rest, inside)
        return done

    def flush(self, stream: int) -> bytes:
        """The end of `stream`: what was held back, masked."""
        done, _, _ = self._run(self._waiting.pop(stream, b""), self._inside.pop(stream, None), last=True)
        return done

    def _without_halves(self, data: bytes) -> bytes:
        for literal in self._literals:
            for size in range(len(literal) - 1, SHORTEST - 1, -1):
                if data.endswith(literal[:size]):
                    data = data[:-size] + MASK
                if data.startswith(literal[-size:]):
                    data = MASK + data[size:]
        return data

    def _keep(self, stream: int, rest: bytes, inside: int | None) -> None:
        if rest:
            self._waiting[stream] = rest
        if inside is not None:
            self._inside[stream] = inside

    def _run(self, buffer: bytes, inside: int | None, *, last: bool) -> tuple[bytes, bytes, int | None]:
        """(what can be shown, what is held back, bytes swallowed of a private key or None)."""
        out: list[bytes] = []
        place = 0
        starts = self._starts(buffer)
        # A match that begins before `safe` cannot become longer by what comes later.
        safe = len(buffer) if last else max(0, len(buffer) - self._reach)
        while True:
            if inside is not None:
                place, inside, waits = self._swallow(buffer, place, inside, last)
                if waits:
                    return b"".join(out), buffer[place:], inside
                continue
            found = self._next(buffer, place, starts)
            if found is None or (found.start() >= safe and not last):
                end = max(place, safe)
                out.append(buffer[place:end])
                return b"".join(out), buffer[end:], None
            out += [buffer[place : found.start()], MASK]
            place = found.end()
            if found.lastgroup == "begin":
                inside = 0

    def _starts(self, buffer: bytes) -> list[int]:
        """Where anything that is masked may begin, the last place first."""
        if not self.suspects(buffer):
            return []
        places = {start for _, start, _ in self._hints.find_matches_as_indexes(buffer, overlapping=True)}
        return sorted(places, reverse=True)

    def _next(self, buffer: bytes, place: int, starts: list[int]) -> re.Match[bytes] | None:
        """The first match from `place` on; takes the places before it off the list."""
        while starts:
            start = starts[-1]
            found = self._search.match(buffer, start) if start >= place else None
            if found is not None:
                return found
            starts.pop()
        return None

    def _swallow(self, buffer: bytes, place: int, inside: int, last: bool) -> tuple[int, int | None, bool]:
        """(place, bytes swallowed or None once outside, whether more must come first)."""
        end = _KEY_END.search(buffer, place)
        left = MOST_PRIVATE_KEY - inside
        if end is not None and end.start() - place <= left:
            return end.end(), None, False
        # A last line that is not complete yet is held back.
        upto = len(buffer) if last else max(place, len(buffer) - _KEY_END_BYTES)
        if upto - place > left:
            return place + left, None, False
        return upto, inside + upto - place, True


def forms_of(secrets: Iterable[str]) -> set[bytes]:
    """The forms in which the values may be printed; values shorter than 6 bytes are left alone.

    Of a value of several lines, each line counts as a value of its own.
    """
    values = {part for secret in secrets for part in (secret, secret.strip(), *secret.splitlines())}
    forms: set[bytes] = set()
    for value in values:
        raw = value.encode("utf-8", "surrogatepass")
        if len(raw) < SHORTEST:
            continue
        forms |= {raw, *_escaped(value), *_base64(raw), raw.hex().encode(), raw.hex().upper().encode()}
    return {form for form in forms if len(form) >= SHORTEST}


def _escaped(value: str) -> set[bytes]:
    found: set[str] = set()
    for plain in (True, False):
        level = {value}
        for _ in range(NESTED):  # some programs escape the slash too
            once = {json.dumps(one, ensure_ascii=plain)[1:-1] for one in level}
            level = once | {one.replace("/", "\\/") for one in once}
            found |= level
    for url in (
        quote(value, safe="", errors="replace"),
        quote(value, errors="replace"),
        quote_plus(value, errors="replace"),
    ):
        found |= {url, re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), url)}
    return {form.encode("utf-8", "surrogatepass") for form in found}


def _base64(raw: bytes) -> set[bytes]:
    """The part of the value's base64 that does not depend on its neighbours, at each alignment."""
    found: set[bytes] = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).rstrip(b"=")
        begin = -(-before * 8 // 6)
        # The last character is shared with what follows, unless the value ends on its boundary.
        end = len(encoded) if (before + len(raw)) % 3 == 0 else len(encoded) - 1
        core = encoded[begin:end]
        found |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return found
