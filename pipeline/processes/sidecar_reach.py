"""Where the sidecar connects to, and where it does not.

Names are resolved here, once, and the connection goes to an address that was judged: a name that answers differently the
next time gains nothing. An address that is not of the public internet is refused unless the list names that address or its
network, also when an IPv6 address only wraps it.
"""
# pathlib would cost every start 5 ms and 1 MB.
# ruff: noqa: PTH110

import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address
    from typing import Any

CONNECT_SECONDS = 30.0
WEB_PORTS = (80, 443)  # where an entry of the list names no port
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_PROXY_HEAD = 16384


class Refused(Exception):
    """Somewhere the agent may not go; a sentence."""


class Unreachable(Exception):
    """Somewhere that does not answer; a sentence without its full stop."""


class Reach:
    """`allow`: what the list names, {"host": name or "*.name" or network, "port": number or null} each; None = nowhere.
    `proxies`: this host's own way out, {"http": url, "https": url, "no": [suffixes]}.
    """

    def __init__(self, allow: "list[dict[str, Any]] | None", proxies: "dict[str, Any]") -> None:
        self.allow = allow
        self.proxies = proxies
        self._tls: Any = None

    # ---------------------------------------------------------------------- the provider

    def provider(self, scheme: str, host: str, port: int) -> socket.socket:
        """A connection to the provider, encrypted for https. Raises Unreachable."""
        try:
            connection = self._connected(scheme, host, port)
            if scheme != "https":
                return connection
            connection.settimeout(CONNECT_SECONDS)
            encrypted: socket.socket = self._context().wrap_socket(connection, server_hostname=host)
            encrypted.settimeout(None)
            return encrypted
        except OSError as error:
            raise Unreachable(_words(error)) from error

    def _context(self) -> "Any":
        if self._tls is None:
            import ssl
            from os import environ, path

            context = ssl.create_default_context()
            if not context.get_ca_certs() and "SSL_CERT_FILE" not in environ:
                bundle = next((place for place in _BUNDLES if path.exists(place)), None)
                if bundle:
                    context.load_verify_locations(bundle)
            own = environ.get("NODE_EXTRA_CA_CERTS", "")
            if own and path.exists(own):
                context.load_verify_locations(own)
            self._tls = context
        return self._tls

    # ---------------------------------------------------------------------- the list

    def listed(self, scheme: str, host: str, port: int) -> socket.socket:
        """A plain connection to a host of the list. Raises Refused, Unreachable."""
        host = host.lower().rstrip(".")
        if self.allow is None:
            raise Refused("this session has no way to the network but its provider")
        literal = _address(host)
        named = [one for one in self.allow if _port_fits(one, port)]
        networks = [one["host"] for one in named if _address(one["host"].partition("/")[0]) is not None]
        if literal is not None:
            if not _within(literal, networks):
                raise Refused("the address is not on the agent's list of allowed hosts")
        elif not any(_name_fits(one["host"], host) for one in named):
            raise Refused("the host is not on the agent's list of allowed hosts")
        try:
            if self._proxy(scheme, host):  # it alone knows the names
                return self._connected(scheme, host, port)
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unreachable(_words(error)) from error
        last: OSError | None = None
        for family, kind, protocol, _, place in found:
            address = _address(str(place[0]).partition("%")[0])
            if address is None or not (_public(address) or _within(address, networks)):
                raise Refused(f"the name leads to {place[0]}, which is not an address of the internet")
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(CONNECT_SECONDS)
                connection.connect(place)
                return _lively(connection)
            except OSError as error:
                connection.close()
                last = error
        raise Unreachable(_words(last or OSError("it has no address")))

    # ---------------------------------------------------------------------- connecting

    def _connected(self, scheme: str, host: str, port: int) -> socket.socket:
        proxy = self._proxy(scheme, host)
        if not proxy:
            return _lively(socket.create_connection((host, port), CONNECT_SECONDS))
        way_host, way_port, login = _proxy_parts(proxy)
        connection = socket.create_connection((way_host, way_port), CONNECT_SECONDS)
        try:
            target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            words = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
            words += [f"Proxy-Authorization: Basic {login}"] if login else []
            connection.sendall("\r\n".join([*words, "", ""]).encode())
            said = b""
            while b"\r\n\r\n" not in said and len(said) < _PROXY_HEAD:
                more = connection.recv(1)  # what follows the head is not ours to read
                if not more:
                    break
                said += more
            if said.split(b" ")[1:2] != [b"200"]:
                answer = said.split(b"\r\n")[0].decode("ascii", "replace")[:100]
                raise OSError(f"this host's proxy answered {answer!r}")
            return _lively(connection)
        except OSError:
            connection.close()
            raise

    def _proxy(self, scheme: str, host: str) -> str:
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return ""
        for suffix in self.proxies.get("no") or ():
            bare = str(suffix).lstrip("*.").lower()
            if suffix == "*" or (bare and (host == bare or host.endswith(f".{bare}"))):
                return ""
        return str(self.proxies.get(scheme) or "")


def _lively(connection: socket.socket) -> socket.socket:
    """Without a time limit (a model may think long), but dead ends are noticed; small pieces leave at once."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _proxy_parts(url: str) -> tuple[str, int, str]:
    """Host, port and the log-in in base64 of http://user:password@host:port."""
    from binascii import b2a_base64
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise OSError("this host's proxy is not an http:// address")
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    return parts.hostname, parts.port or 80, b2a_base64(user.encode(), newline=False).decode() if user else ""


def _port_fits(entry: "dict[str, Any]", port: int) -> bool:
    return port == entry["port"] if entry.get("port") else port in WEB_PORTS


def _name_fits(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _address(text: str) -> "IPv4Address | IPv6Address | None":
    from ipaddress import ip_address

    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None


def _within(address: "IPv4Address | IPv6Address", networks: list[str]) -> bool:
    from ipaddress import ip_network

    return any(address in ip_network(network, strict=False) for network in networks)


def _public(address: "IPv4Address | IPv6Address") -> bool:
    """Whether it is of the internet, and what it may wrap too (mapped, 6to4, Teredo, NAT64)."""
    if not address.is_global or address.is_multicast:
        return False
    if address.version == 4:
        return True
    from ipaddress import IPv4Address, ip_network

    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in ip_network("64:ff9b::/96"):
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return all(one is None or (one.is_global and not one.is_multicast) for one in inner)


def _words(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).rstrip(".")
