"""One connection of an agent to its sidecar: requests for its provider, and for the hosts that it may reach.

A request for the provider carries the session's token where the program puts its key. It goes on with the provider's key in
the same place, to the one upstream, and its answer comes back as it comes. What names another host is a proxy's request.
"""

import select
from _operator import _compare_digest as same  # hmac's own; the module around it costs 3 ms
from socket import IPPROTO_TCP, SHUT_WR, TCP_NODELAY, socket

from pipeline.processes.runner_json import dumps
from pipeline.processes.sidecar_http import (
    HOP_BY_HOP,
    UNTIL_CLOSED,
    BadMessage,
    Gone,
    Head,
    Reader,
    written,
)
from pipeline.processes.sidecar_reach import Reach, Refused, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Where programs put their key; the last is Azure's. What else a request carries of log-ins goes no further.
KEY_FIELDS = (b"x-api-key", b"x-goog-api-key", b"api-key")
_DROPPED = HOP_BY_HOP | frozenset((*KEY_FIELDS, b"authorization", b"cookie", b"host"))
_NO_BODY = (b"204", b"304")
_TELLS = {
    400: (b"Bad Request", "invalid_request_error", "INVALID_ARGUMENT"),
    401: (b"Unauthorized", "authentication_error", "UNAUTHENTICATED"),
    403: (b"Forbidden", "permission_error", "PERMISSION_DENIED"),
    502: (b"Bad Gateway", "api_error", "UNAVAILABLE"),
}


class Upstream:
    """The one provider: {"scheme", "host", "port", "path"}; `key` goes where `token` came."""

    __slots__ = ("authority", "host", "key", "path", "port", "scheme", "token")

    def __init__(self, where: "dict[str, object]", key: str, token: str) -> None:
        self.scheme, self.host = str(where["scheme"]), str(where["host"])
        self.port = int(str(where["port"]))
        self.path = str(where["path"]).encode()
        shown = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = (shown if self.port in (80, 443) else f"{shown}:{self.port}").encode()
        self.key, self.token = key.encode(), token.encode()

    def is_below(self, target: bytes) -> bool:
        """Whether a request's target stays below the base URL's path."""
        path = target.split(b"?", 1)[0]
        plain = (
            path.lower()
            .replace(b"%2e", b".")
            .replace(b"%2f", b"/")
            .replace(b"%5c", b"/")
            .replace(b"\\", b"/")
        )
        if b".." in plain.split(b"/"):
            return False
        return not self.path or path == self.path or path.startswith(self.path.rstrip(b"/") + b"/")


class Connection:
    """Serves one connection until it ends. `tell` notes where the agent was refused to go."""

    def __init__(
        self, client: socket, upstream: Upstream | None, reach: Reach, tell: "Callable[[str], None]"
    ) -> None:
        self.client = client
        self.reader = Reader(client)
        self.upstream, self.reach, self.tell = upstream, reach, tell
        self._up: Reader | None = None  # to the provider, kept between requests

    def serve(self) -> None:
        try:
            if self.client.family != 1:  # AF_UNIX
                self.client.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            while self._request():
                pass
        except (Gone, OSError, BadMessage):
            pass  # one end went away, or speaks no HTTP: the other learns it by the connection's end
        finally:
            self._hang_up()
            self.client.close()

    def _request(self) -> bool:
        """One request and its answer; False when the connection is over."""
        raw = self.reader.head()
        if not raw:
            return False
        try:
            head = Head(raw)
            size = head.size(default=0)
            if len(head.first) != 3 or head.first[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
                raise BadMessage("It speaks another version.")
        except BadMessage as bad:
            return self._say(400, f"The request is not understood. {bad}")
        method, target = head.first[:2]
        if method == b"CONNECT":
            return self._tunnel(target)
        if not target.startswith(b"/"):
            return self._elsewhere(head, size)
        return self._provider(head, size)

    # ---------------------------------------------------------------------- the provider

    def _provider(self, head: Head, size: int) -> bool:
        up = self.upstream
        if up is None:
            return self._say(403, "This session has no provider.")
        fields, target = self._with_key(up, head)
        if target is None:
            return self._say(401, "The request does not carry this session's token.")
        if not up.is_below(target):
            return self._say(403, f"Only what lies below {up.path.decode()} of the provider can be reached.")
        try:
            self._dial(up)
        except Unreachable as why:
            return self._say(502, f"{up.authority.decode()} cannot be reached: {why}.")
        fields.insert(0, (b"Host", up.authority))
        return self._exchange(head, size, target, fields, up.authority.decode(), keep=True)

    def _with_key(self, up: Upstream, head: Head) -> "tuple[list[tuple[bytes, bytes]], bytes | None]":
        """The fields and the target with the key in the token's place; None for the target where there was none."""
        fields, found = head.without(_DROPPED), False
        for name, value in head.fields:
            low = name.lower()
            if low in KEY_FIELDS and same(value, up.token):
                found = True
                fields.append((name, up.key))
            elif (
                low == b"authorization"
                and same(value[:7].lower(), b"bearer ")
                and same(value[7:].strip(), up.token)
            ):
                found = True
                fields.append((name, value[:7] + up.key))
        path, mark, query = head.first[1].partition(b"?")
        words = []
        for word in query.split(b"&") if mark else ():
            if not word.startswith(b"key="):
                words.append(word)
            elif same(word[4:], up.token):
                found = True
                words.append(b"key=" + up.key)
        if not up.key:  # a provider that wants none
            fields = [
                (name, value) for name, value in fields if name.lower() not in (*KEY_FIELDS, b"authorization")
            ]
            words = [word for word in words if not word.startswith(b"key=")]
        return fields, (path + (b"?" + b"&".join(words) if words else b"")) if found else None

    def _dial(self, up: Upstream) -> None:
        if self._up is not None and self._up.empty and not _readable(self._up.socket):
            return
        self._hang_up()
        self._up = Reader(self.reach.provider(up.scheme, up.host, up.port), self._wait)

    def _hang_up(self) -> None:
        if self._up is not None:
            self._up.socket.close()
            self._up = None

    def _wait(self) -> None:
        """Until the provider says something; Gone as soon as the agent has hung up, so that nothing more is paid for."""
        if self._up is None:
            raise Gone
        pending = getattr(self._up.socket, "pending", None)
        if pending is not None and pending():
            return
        poll = select.poll()
        poll.register(self._up.socket, select.POLLIN)
        poll.register(self.client, select.POLLRDHUP)
        for fd, _ in poll.poll():
            if fd == self.client.fileno():
                raise Gone

    def _exchange(
        self,
        head: Head,
        size: int,
        target: bytes,
        fields: "list[tuple[bytes, bytes]]",
        whom: str,
        *,
        keep: bool,
    ) -> bool:
        """Send the request on, and its answer back."""
        if self._up is None:
            return False
        up, method = self._up, head.first[0]
        if head.values(b"expect"):
            self.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        fields.append((b"Connection", b"keep-alive" if keep else b"close"))
        sent = True
        try:
            up.socket.sendall(written(b" ".join((method, target, b"HTTP/1.1")), fields))
            for data in self.reader.body(size):
                up.socket.sendall(data)
        except OSError:  # it may have answered before it had read all
            sent = False
        answer = self._answer_head(up)
        if answer is None:
            return self._say(502, f"{whom} closed the connection without an answer.")
        status = answer.first[1]
        none = method == b"HEAD" or status in _NO_BODY
        length = 0 if none else answer.size(default=UNTIL_CLOSED)
        over = not sent or head.closes or answer.closes or length == UNTIL_CLOSED
        kept = answer.without(HOP_BY_HOP)
        self.client.sendall(
            written(b" ".join(answer.first), [*kept, (b"Connection", b"close" if over else b"keep-alive")])
        )
        for data in up.body(length):
            self.client.sendall(data)
        if over or not keep:
            self._hang_up()
        return not over

    def _answer_head(self, up: Reader) -> Head | None:
        """The head of the answer, past those that only say "go on"; None when there is none."""
        while True:
            try:
                raw = up.head()
            except OSError:
                raw = b""
            if not raw:
                return None
            answer = Head(raw)
            if not answer.first[1].startswith(b"1"):
                return answer

    # ---------------------------------------------------------------------- other hosts

    def _tunnel(self, target: bytes) -> bool:
        host, port = _authority(target, 443)
        other = self._open("https", host, port)
        if other is None:
            return False
        self.client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        join(self.reader, other)
        return False

    def _elsewhere(self, head: Head, size: int) -> bool:
        """A proxy's plain request: http://host/path."""
        scheme, mark, rest = head.first[1].partition(b"://")
        authority, slash, path = rest.partition(b"/")
        if not mark or scheme.lower() != b"http":
            return self._say(400, "The request is not understood: it names no http:// address.")
        host, port = _authority(authority, 80)
        other = self._open("http", host, port)
        if other is None:
            return False
        self._hang_up()
        self._up = Reader(other, self._wait)
        fields = [(b"Host", authority), *head.without(HOP_BY_HOP | {b"host"})]
        return self._exchange(head, size, slash + path or b"/", fields, host, keep=False)

    def _open(self, scheme: str, host: str, port: int) -> socket | None:
        place = f"{host}:{port}"
        try:
            if not host or not port:
                raise Refused("it names no host and port")
            return self.reach.listed(scheme, host, port)
        except Refused as why:
            self.tell(f"{place} was not reached: {why}")
            self._say(403, f"{place} was not reached: {why}.")
        except Unreachable as why:
            self._say(502, f"{place} cannot be reached: {why}.")
        return None

    # ---------------------------------------------------------------------- answers of our own

    def _say(self, status: int, sentence: str) -> bool:
        """An answer in the form that each provider's program reads; the connection ends with it."""
        reason, kind, word = _TELLS[status]
        error = {"type": kind, "code": status, "status": word, "message": f"huskies: {sentence}"}
        body = dumps({"type": "error", "error": error}).encode()
        fields = [
            (b"Content-Type", b"application/json"),
            (b"Content-Length", str(len(body)).encode()),
            (b"Connection", b"close"),
        ]
        self.client.sendall(written(b"HTTP/1.1 %d %s" % (status, reason), fields) + body)
        self.client.shutdown(SHUT_WR)
        self.client.settimeout(2.0)
        while self.client.recv(65536):  # closed with bytes unread, the answer would be lost on its way
            pass
        return False


def join(one: Reader, other: socket) -> None:
    """Pass bytes both ways until both directions have ended."""
    from _thread import allocate_lock, start_new_thread

    over = allocate_lock()
    over.acquire()

    def back() -> None:
        try:
            _pour(Reader(other), one.socket)
        finally:
            over.release()

    start_new_thread(back, ())
    _pour(one, other)
    over.acquire()
    other.close()


def _pour(source: Reader, target: socket) -> None:
    try:
        while data := source.some():
            target.sendall(data)
        target.shutdown(SHUT_WR)
    except OSError:
        for each in (source.socket, target):
            try:
                each.shutdown(2)
            except OSError:
                continue


def _readable(connection: socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _authority(text: bytes, default: int) -> tuple[str, int]:
    """Host and port; ("", 0) for what is none."""
    host, colon, port = text.decode("ascii", "replace").rpartition(":")
    if not colon or "]" in port:
        host, port = text.decode("ascii", "replace"), str(default)
    if "@" in host or not port.isdigit() or int(port) > 65535:
        return "", 0
    return host.strip("[]"), int(port)
