"""HTTP/1.1 as far as the sidecar must know it: heads, and where a body ends. Bodies are passed on as they come, byte for byte."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from socket import socket

MAX_HEAD = 65536  # bytes
MAX_LINE = 8192  # bytes of a line that begins a chunk
READ_BYTES = 65536
CHUNKED = -1
UNTIL_CLOSED = -2

# Between two neighbours only. Expect is answered by the sidecar itself, and no connection becomes another protocol.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te upgrade expect".split()
)


class BadMessage(Exception):
    """What came is not HTTP/1.1 as this program speaks it; a sentence."""


class Gone(Exception):
    """The other end went away in the middle of a message."""


class Head:
    """The first line in its words, and the fields in their order."""

    __slots__ = ("fields", "first")

    def __init__(self, raw: bytes) -> None:
        """`raw` ends with the blank line. Raises BadMessage."""
        lines = raw[:-4].split(b"\r\n")
        self.first = lines[0].split(b" ", 2)
        self.fields: list[tuple[bytes, bytes]] = []
        if len(self.first) < 2 or b"\0" in raw or raw.count(b"\n") != raw.count(b"\r\n"):
            raise BadMessage("Its first line or a line's end is not HTTP.")
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon or not name or name.strip(b" \t") != name:
                raise BadMessage("A header is not HTTP.")
            self.fields.append((name, value.strip(b" \t")))

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field; `name` in lower case."""
        return [value for key, value in self.fields if key.lower() == name]

    def without(self, names: "frozenset[bytes]") -> list[tuple[bytes, bytes]]:
        """The fields but for these and those that the Connection field names."""
        named = {word.strip().lower() for value in self.values(b"connection") for word in value.split(b",")}
        gone = names | (named - {b"transfer-encoding", b"content-length"})
        return [(key, value) for key, value in self.fields if key.lower() not in gone]

    @property
    def closes(self) -> bool:
        """Whether the connection ends after this message."""
        words = {word.strip().lower() for value in self.values(b"connection") for word in value.split(b",")}
        return b"close" in words or (b"HTTP/1.0" in self.first and b"keep-alive" not in words)

    def size(self, *, default: int) -> int:
        """Bytes of the body, CHUNKED or `default` where nothing is said. Raises BadMessage where two things are."""
        encodings, lengths = self.values(b"transfer-encoding"), set(self.values(b"content-length"))
        if encodings:
            if lengths or [word.lower() for word in encodings] != [b"chunked"]:
                raise BadMessage("It does not say clearly how long its body is.")
            return CHUNKED
        if not lengths:
            return default
        length = lengths.pop()
        if lengths or not length.isdigit() or len(length) > 18:
            raise BadMessage("It does not say clearly how long its body is.")
        return int(length)


def written(first: bytes, fields: "list[tuple[bytes, bytes]]") -> bytes:
    return b"\r\n".join([first, *(name + b": " + value for name, value in fields), b"", b""])


class Reader:
    """What comes from a socket. `wait` is called before each read that may block."""

    __slots__ = ("_buffer", "socket", "wait")

    def __init__(self, socket: "socket", wait: "Callable[[], None] | None" = None) -> None:
        self.socket = socket
        self.wait = wait
        self._buffer = bytearray()

    @property
    def empty(self) -> bool:
        return not self._buffer

    def _more(self) -> bool:
        if self.wait is not None:
            self.wait()
        data = self.socket.recv(READ_BYTES)
        self._buffer += data
        return bool(data)

    def _upto(self, mark: bytes, limit: int) -> bytes:
        """All through `mark`; b"" at the end of what comes. Raises Gone, BadMessage when it is longer than `limit`."""
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > limit:
                raise BadMessage(f"A head or line is longer than {limit} bytes.")
            if not self._more():
                if self._buffer:
                    raise Gone
                return b""
        end += len(mark)
        found = bytes(self._buffer[:end])
        del self._buffer[:end]
        return found

    def head(self) -> bytes:
        """The next head with its blank line, b"" when there is none any more."""
        return self._upto(b"\r\n\r\n", MAX_HEAD)

    def some(self, most: int = READ_BYTES) -> bytes:
        """At least one byte and at most `most`; b"" at the end."""
        if not self._buffer and not self._more():
            return b""
        found = bytes(self._buffer[:most])
        del self._buffer[:most]
        return found

    def body(self, size: int) -> "Iterator[bytes]":
        """The bytes of a body as they come, its framing included. Raises Gone when it is cut off, BadMessage."""
        if size == UNTIL_CLOSED:
            while data := self.some():
                yield data
        elif size != CHUNKED:
            yield from self._exactly(size)
        else:
            while True:
                line = self._upto(b"\r\n", MAX_LINE)
                digits = line.split(b";", 1)[0].strip()
                if not line:
                    raise Gone
                if not digits or len(digits) > 15 or digits.strip(b"0123456789abcdefABCDEF"):
                    raise BadMessage("A chunk does not say its length.")
                yield line
                if not int(digits, 16):
                    break
                yield from self._exactly(int(digits, 16) + 2)
            while (line := self._upto(b"\r\n", MAX_LINE)) != b"\r\n":
                if not line:
                    raise Gone
                yield line
            yield line

    def _exactly(self, size: int) -> "Iterator[bytes]":
        while size:
            data = self.some(min(size, READ_BYTES))
            if not data:
                raise Gone
            size -= len(data)
            yield data
