"""The gate before a scheduler's dashboard port: who may see the work of a cluster.

The port shows task names, logs, profiles and links, and Dask asks nobody for a password. The gate judges each
request before Dask's routes see it: pages, websockets, JSON, metrics, and the proxy to workers alike.

* Beyond this machine (`Rules.token` is set): a Host that is none of ours is refused (421: a name that an attacker
  lets point here), a request without the token, too (401). The token comes as ``Authorization: Bearer``, in a
  cookie, or once as ``?token=`` in the printed link, which a browser exchanges for the cookie.
* Everywhere: a page of another site may not open a websocket or send a form (403).

``/health`` is open to probes, ``/individual-plots.json`` to JupyterLab, whose listing sends no token; it names plots
and nothing of the work. The gate keeps no state, and knows nothing of what lies behind it.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import tornado.httputil as httputil

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
OPEN = ("/health", "/individual-plots.json")
TOKEN = "daskml-scale.dashboard.token"
"""Dask configuration of a token to use instead of a random one: ``DASK_DASKML_SCALE__DASHBOARD__TOKEN``."""


@dataclass(frozen=True)
class Rules:
    """What the gate of one scheduler asks for.

    Attributes
    ----------
    token : str
        Empty for a port that only this machine reaches.
    hosts : tuple of str
        Names under which the port is reached, without a port number. Empty with an empty token: any.
    """

    token: str = field(default="", repr=False)
    hosts: tuple[str, ...] = ()

    @property
    def cookie(self) -> str:
        """Name of the cookie: cookies are shared by all ports of a host, so each token has its own."""
        return "daskml-" + blake2b(self.token.encode(), digest_size=6).hexdigest()


@dataclass(frozen=True)
class Refusal:
    """An answer that the gate gives itself."""

    code: int
    reason: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


def rules_for(listen: str, hosts: Sequence[str] = ()) -> Rules:
    """Return the rules of a port.

    Parameters
    ----------
    listen : str
        Host at which it listens.
    hosts : sequence of str
        More names under which it is reached, such as that of a JupyterHub in front of it.
    """
    import dask.config

    if is_loopback(listen):
        return Rules("", (*LOOPBACK, *hosts) if hosts else ())
    token = str(dask.config.get(TOKEN, default="") or "") or secrets.token_urlsafe(32)
    return Rules(token, tuple(dict.fromkeys((*LOOPBACK, *own_names(listen), *hosts))))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a port at ``host``."""
    return host in (*LOOPBACK, "::1")


def own_names(listen: str) -> list[str]:
    """Return the names and addresses of this machine, the one to print first."""
    import psutil

    if listen not in ("0.0.0.0", "::", "[::]"):
        return [listen]
    name = socket.gethostname()
    addresses = [
        f"[{one.address.partition('%')[0]}]" if one.family == socket.AF_INET6 else one.address
        for card in psutil.net_if_addrs().values()
        for one in card
        if one.family in (socket.AF_INET, socket.AF_INET6)
    ]
    outside = [address for address in addresses if not address.startswith(("127.", "[::1", "[fe80"))]
    return [*outside, name, socket.getfqdn(name)]


def judge(rules: Rules, target: str, headers: Mapping[str, str]) -> Refusal | None:
    """Return ``None`` to let a request pass, else the answer to it.

    Parameters
    ----------
    target : str
        Path and query as sent.
    headers : mapping
        Case-insensitive, as Tornado's.
    """
    url = urlsplit(target if target.startswith("/") else "/")
    if rules.hosts and _name(headers.get("Host", "")) not in rules.hosts:
        message = f"{_name(headers.get('Host', ''))!r} is no name of this dashboard; list it under dashboard: hosts:"
        return Refusal(421, "Misdirected Request", message)
    if url.path in OPEN:
        return None
    if not _same_site(rules, headers):
        return Refusal(403, "Forbidden", "a page of another site may not use this dashboard; see dashboard: hosts:")
    if not rules.token or _is(rules, _sent(rules, headers)):
        return None
    pairs = parse_qsl(url.query, keep_blank_values=True)
    if not any(name == "token" and _is(rules, value) for name, value in pairs):
        message = "open the link that was printed when the cluster started, or send its token: Authorization: Bearer"
        return Refusal(401, "Unauthorized", message, {"WWW-Authenticate": "Bearer"})
    if "text/html" not in headers.get("Accept", ""):
        return None  # a program keeps no cookies
    rest = urlencode([(name, value) for name, value in pairs if name != "token"])
    # Relative: behind a proxy the path has a prefix that nobody here knows.
    place = "./" + quote(url.path.rpartition("/")[2], safe="%") + (f"?{rest}" if rest else "")
    cookie = f"{rules.cookie}={rules.token}; HttpOnly; SameSite=Lax; Path=/"
    return Refusal(302, "Found", "", {"Location": place, "Set-Cookie": cookie, "Referrer-Policy": "no-referrer"})


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    end = host.rfind("]")
    return host[: end + 1].lower() if end >= 0 else host.partition(":")[0].lower()


def _same_site(rules: Rules, headers: Mapping[str, str]) -> bool:
    origin = headers.get("Origin")
    if origin is None:
        return True  # no browser, or a plain link
    place = urlsplit(origin).netloc.lower()
    # A script can set neither header on a websocket; proxies that change Host name the first one here.
    known = {headers.get(name, "").lower() for name in ("Host", "X-Forwarded-Host")}
    return bool(place) and (place in known or _name(place) in set(rules.hosts) - set(LOOPBACK))


def _sent(rules: Rules, headers: Mapping[str, str]) -> str:
    """Return the token of a request's headers, empty without one."""
    kind, _, value = headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    try:
        found = SimpleCookie(headers.get("Cookie", "")).get(rules.cookie)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _is(rules: Rules, sent: str) -> bool:
    return hmac.compare_digest(sent.encode(), rules.token.encode())


def with_token(link: str, token: str) -> str:
    """Return a link that carries the token, as it is printed for people."""
    return link + ("&" if "?" in link else "?") + urlencode({"token": token}) if token and link else link


class Gate(httputil.HTTPServerConnectionDelegate):  # type: ignore[misc]
    """Stands between a Tornado HTTP server and its application."""

    def __init__(self, application: Any, rules: Rules) -> None:
        self.application, self.rules = application, rules

    def start_request(self, server_conn: Any, request_conn: Any) -> Any:
        return _Request(self, server_conn, request_conn)

    def on_close(self, server_conn: Any) -> None:
        self.application.on_close(server_conn)


class _Request(httputil.HTTPMessageDelegate):  # type: ignore[misc]
    """One request: answered here, or handed on from its headers on."""

    def __init__(self, gate: Gate, server_conn: Any, conn: Any) -> None:
        self.gate, self.server_conn, self.conn = gate, server_conn, conn
        self.inner: Any = None
        self.refusal: Refusal | None = None

    def headers_received(self, start_line: Any, headers: Any) -> Any:
        self.refusal = judge(self.gate.rules, start_line.path, headers)
        if self.refusal is not None:
            return None
        self.inner = self.gate.application.start_request(self.server_conn, self.conn)
        return self.inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Any:
        return None if self.inner is None else self.inner.data_received(chunk)

    def finish(self) -> None:
        if self.inner is not None:
            self.inner.finish()
            return
        assert self.refusal is not None
        body = f"{self.refusal.reason}: {self.refusal.message}\n".encode()
        headers = httputil.HTTPHeaders(
            {
                "Content-Type": "text/plain; charset=utf-8",
                "Content-Length": str(len(body)),
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": "no-store",
                **self.refusal.headers,
            }
        )
        start = httputil.ResponseStartLine("HTTP/1.1", self.refusal.code, self.refusal.reason)
        self.conn.write_headers(start, headers, body)
        self.conn.finish()

    def on_connection_close(self) -> None:
        if self.inner is not None:
            self.inner.on_connection_close()


def guard(server: Any, rules: Rules) -> None:
    """Put the gate before the HTTP server of a scheduler; once, whoever asks first.

    Parameters
    ----------
    server : distributed.Scheduler
        Constructed; nothing was answered yet when its event loop has not run since.

    Raises
    ------
    AttributeError
        When this version of Dask or Tornado has another server: better no scheduler than an open port.
    """
    http = server.http_server
    if not isinstance(http.request_callback, Gate):
        http.request_callback = Gate(http.request_callback, rules)
