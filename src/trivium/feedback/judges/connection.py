"""The way to a judge server: its address, the key, and a client that reads no more than it has to."""

import ipaddress
import os
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from trivium.errors import UserError
from trivium.feedback.judges.replies import MAX_BODY

OPENAI_URL = "https://api.openai.com/v1"
LONGEST_RETRY_AFTER = 120.0  # seconds: a server that wants a longer pause is asked again all the same
PLACEHOLDER_KEY = "none"  # what a server on this machine gets where no key is set


class TooLarge(Exception):
    """The body of an answer went on beyond ``MAX_BODY``."""


class Compressed(Exception):
    """The body of an answer is compressed although it was asked not to be: a small one could become a large one."""


def open_client(url: str, key: str, timeout: float) -> Any:
    """An ``openai.AsyncOpenAI`` that repeats nothing by itself, follows nobody to another address, and raises
    ``TooLarge`` or ``Compressed`` at what it should not read. ``timeout`` in seconds, for each read."""
    import openai

    async def limit_body(response: Any) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Compressed
        response.stream = _bounded(response.stream)

    return openai.AsyncOpenAI(
        api_key=key,
        base_url=url,
        timeout=timeout,
        max_retries=0,
        default_headers={"Accept-Encoding": "identity"},
        http_client=openai.DefaultAsyncHttpx2Client(
            event_hooks={"response": [limit_body]},
            # The texts and the key go where the recipe says, and nowhere else.
            follow_redirects=False,
            # A proxy from the environment has no business between us and this machine.
            trust_env=not is_loopback(url),
        ),
    )


def _bounded(stream: Any) -> Any:
    """The stream of a body, which ends with ``TooLarge`` once it is longer than ``MAX_BODY``."""
    import httpx2

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self) -> Any:
            size = 0
            async for chunk in stream:
                size += len(chunk)
                if size > MAX_BODY:
                    raise TooLarge
                yield chunk

        async def aclose(self) -> None:
            await stream.aclose()

    return Bounded()


def retry_after(headers: Any) -> float:
    """Seconds the server wants us to wait: a number, or a date (RFC 9110, section 10.2.3); 0 where it says nothing."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, TypeError):
            return 0.0
        seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if seconds == seconds else 0.0


def checked_url(url: str | None) -> str:
    """The address without a trailing slash. UserError where it is none, or holds what only a key may be."""
    address = (url or OPENAI_URL).strip().rstrip("/")
    try:
        parts = urlsplit(address)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        whole = False
    if not whole:
        raise UserError(f"judge.url {url!r} is no address of a server; it looks like http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            f"judge.url for {parts.hostname} holds a password or a query, which would be written to logs; "
            "put the key into the environment variable that judge.key_variable names"
        )
    return address


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_key(variable: str, url: str) -> str:
    """The key from the environment. UserError where it is missing or cannot be sent; it does not show the key."""
    key = os.environ.get(variable, "").strip()
    if not key and is_loopback(url):
        return PLACEHOLDER_KEY
    if not key:
        raise UserError(
            f"the judge at {url} needs a key, and the environment variable {variable} is not set; set it "
            f"(export {variable}=…; any word where the server wants none), or name another in judge.key_variable"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"the environment variable {variable} holds characters that no key has; copy the key again")
    return key
