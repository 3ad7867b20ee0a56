"""Who may ask what: the cookie, the CSRF token, and the gate that every request passes before a handler sees it.

The cookie holds the annotator's access token itself. A session made from it would need a key or a table of its own to
be kept secret and revoked; the token needs neither: the store knows its hash alone, and revoking it ends every session
at the next request. The CSRF token is an HMAC keyed by the access token, which no other page can read, so there is no
secret of the server that could be guessed, shipped or lost.
"""

import asyncio
import hashlib
import hmac
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trivium.web.settings import ServerSettings

LOG = logging.getLogger("trivium.web")
BODY = "trivium.body"  # where a request's scope holds the posted bytes
BODY_SECONDS = 30.0  # a body that takes longer is given up
COOKIE_DAYS = 30

# Nothing but our own files is loaded or run. The referrer goes to our own pages alone: with `no-referrer` a browser
# would send `Origin: null` when a form is posted, and the origin could not be checked.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def cookie_name(store_url: str) -> str:
    """Browsers share cookies between the ports of a host: a name by store keeps two servers from ending each other's
    sessions."""
    return f"trivium_rank_{hashlib.sha256(store_url.encode()).hexdigest()[:8]}"


def csrf_token(token: str) -> str:
    """What a form must send back, for the annotator with this access token."""
    return hmac.new(token.encode(), b"trivium csrf", hashlib.sha256).hexdigest()


def csrf_matches(token: str, given: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(csrf_token(token).encode(), given.encode("utf-8", "replace"))


def wants_json(headers: Mapping[str, str]) -> bool:
    return "application/json" in headers.get("accept", "")


class Buckets:
    """Token buckets by key: ``a_minute`` on average, up to ``burst`` at once. At most ``size`` keys are remembered; the
    one not asked for longest goes first, and begins anew with a full bucket."""

    def __init__(self, a_minute: float, burst: float, size: int = 10_000) -> None:
        self.rate, self.burst, self.size = a_minute / 60, burst, size
        self.levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.lock = threading.Lock()

    def take(self, key: str, now: float | None = None) -> float:
        """Take one; 0 if there was one, else the seconds until there is."""
        with self.lock:
            now = time.monotonic() if now is None else now
            level = self._level(key, now)
            wait = 0.0 if level >= 1 else (1 - level) / self.rate
            self.levels[key] = (level if wait else level - 1, now)
            self.levels.move_to_end(key)
            while len(self.levels) > self.size:
                self.levels.popitem(last=False)
            return wait

    def wait(self, key: str, now: float | None = None) -> float:
        """Seconds until there is one to take; takes none."""
        with self.lock:
            level = self._level(key, time.monotonic() if now is None else now)
            return 0.0 if level >= 1 else (1 - level) / self.rate

    def _level(self, key: str, now: float) -> float:
        level, then = self.levels.get(key, (self.burst, now))
        return min(self.burst, level + max(0.0, now - then) * self.rate)


class Limits:
    """Requests by token, and wrong tokens by address. Tokens are known here by their hash."""

    def __init__(self, settings: ServerSettings) -> None:
        self.requests = Buckets(settings.requests_a_minute, max(20, settings.requests_a_minute / 4))
        self.failures = Buckets(settings.failures_a_minute, settings.failures_a_minute)
        self.known: OrderedDict[str, None] = OrderedDict()  # tokens that were right lately: no flood locks them out
        self.lock = threading.Lock()

    def wait(self, address: str, token: str | None) -> float:
        """Seconds this request has to wait; 0: it may go on. Who has no right token counts by address."""
        digest = _digest(token)
        return self.requests.take(digest if digest in self.known else f"from {address}")

    def failure_wait(self, address: str, token: str) -> float:
        """Seconds until another unknown token from this address is looked up."""
        return 0.0 if _digest(token) in self.known else self.failures.wait(address)

    def was_right(self, token: str) -> None:
        with self.lock:
            self.known[_digest(token)] = None
            self.known.move_to_end(_digest(token))
            while len(self.known) > 10_000:
                self.known.popitem(last=False)

    def was_wrong(self, address: str, token: str) -> None:
        with self.lock:
            self.known.pop(_digest(token), None)
        self.failures.take(address)


def _digest(token: str | None) -> str:
    return hashlib.sha256((token or "").encode("utf-8", "replace")).hexdigest()


class Gate:
    """Pure ASGI middleware: host, rate, origin and size of a request; headers of a response; a fault becomes a 500."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, limits: Limits, cookie: str) -> None:
        self.app, self.settings, self.limits, self.cookie = app, settings, limits, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(MutableHeaders(scope=message), scope["path"])
            await send(message)

        refusal = self._refusal(scope, headers)
        if refusal is None and scope["method"] not in ("GET", "HEAD"):
            refusal = await self._read_body(scope, headers, receive)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            LOG.exception("%s %r failed", scope["method"], scope["path"].partition("/enter/")[0] or "/enter")
            if started:
                raise
            fault = _refuse(headers, 500, "the server met a fault of its own; it is in the server's log")
            await fault(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if len(headers.getlist("host")) != 1 or not self.settings.allows_host(headers["host"]):
            return _refuse(
                headers, 400, f"this server is not {headers.get('host', 'named')!r}; open it at {self.settings.url}"
            )
        if scope["path"] != "/health" and not scope["path"].startswith("/static/"):
            token = cookie_parser(headers.get("cookie", "")).get(self.cookie)
            if wait := self.limits.wait((scope.get("client") or ("",))[0], token):
                return too_many(headers, wait)
        if scope["method"] not in ("GET", "HEAD") and not self._is_from_here(headers):
            return _refuse(headers, 403, "the form was sent from another page than ours; open the page and try again")
        return None

    def _is_from_here(self, headers: Headers) -> bool:
        """Whether a page of ours sent this form.

        ``Sec-Fetch-Site`` decides where a browser sends it, and no page can forge it. Else ``Origin``, else
        ``Referer`` must name us. Where all three are missing, or the origin is hidden (``null``), the form is refused:
        every browser of today sends one of them, and a program can.
        """
        site = headers.get("sec-fetch-site")
        if site is not None and site != "same-origin":
            return False
        source = headers.get("origin") or headers.get("referer")
        if source is None or source == "null":
            return site == "same-origin"
        try:
            parts = urlsplit(source)
        except ValueError:  # a bracket that is never closed
            return False
        hosts = {headers["host"].lower(), self.settings.public_host}
        return parts.scheme in ("http", "https") and parts.netloc.lower() in hosts

    async def _read_body(self, scope: Scope, headers: Headers, receive: Receive) -> Response | None:
        """Read the body into the scope; stop where it grows too long or takes too long."""
        limit = self.settings.body_bytes
        too_large = _refuse(headers, 413, f"the form is larger than {limit // 1024} KiB; shorten what you wrote")
        length = headers.get("content-length", "0")
        if not length.isdigit() or len(length) > 12 or int(length) > limit:
            return too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return _refuse(headers, 400, "the form was cut off")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > limit:
                        return too_large
        except TimeoutError:
            return _refuse(headers, 408, "the form took too long to arrive; send it again")
        scope[BODY] = bytes(body)
        return None


def too_many(headers: Mapping[str, str], wait: float) -> Response:
    """429, with the seconds to wait."""
    seconds = max(1, round(wait + 0.5))
    response = _refuse(headers, 429, f"too many requests; wait {seconds} seconds and try again")
    response.headers["Retry-After"] = str(seconds)
    return response


def _refuse(headers: Mapping[str, str], status: int, sentence: str) -> Response:
    if wants_json(headers):
        return JSONResponse({"ok": False, "error": sentence}, status)
    return PlainTextResponse(sentence, status)


def _add_headers(headers: MutableHeaders, path: str) -> None:
    for name, value in HEADERS.items():
        headers[name] = value
    if path.startswith("/enter/"):  # this address is a token; the pages and files asked for next need not hear of it
        headers["Referrer-Policy"] = "no-referrer"
    # Static files are asked for again with their ETag, so that an update is seen; nothing else is kept anywhere.
    headers["Cache-Control"] = "no-cache" if path.startswith("/static/") else "no-store"
