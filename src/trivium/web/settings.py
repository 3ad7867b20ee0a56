"""What a ranking server is told when it starts."""

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trivium.errors import UserError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class ServerSettings:
    """``host`` and ``port`` are what is bound; ``public_url`` is what people open where a reverse proxy stands before
    the server, and ``names`` are further host names by which it may be addressed.

    ``gold_share`` and ``random_share`` are shares of the tasks given out; a task stays with an annotator for
    ``lease_seconds``. ``requests_a_minute`` counts a token's requests, ``failures_a_minute`` the wrong tokens from one
    address; a posted form may have ``body_bytes``. ``templates`` and ``static`` replace the folders of the package.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str | None = None
    names: tuple[str, ...] = ()
    gold_share: float = 0.1
    random_share: float = 0.2
    lease_seconds: int = 1800
    seed: int = 0
    guidelines: Path | None = None
    requests_a_minute: int = 600
    failures_a_minute: int = 20
    body_bytes: int = 256 * 1024
    templates: Path | None = None
    static: Path | None = None

    def __post_init__(self) -> None:
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
                raise UserError(
                    f"the public address {self.public_url!r} is not one the page can be opened at: give scheme and "
                    "host, such as https://rank.example.org"
                )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def secure(self) -> bool:
        """Whether browsers reach the server by https, so that its cookie may be kept to https."""
        return (self.public_url or "").startswith("https://")

    @property
    def url(self) -> str:
        """What people open, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"

    @property
    def public_host(self) -> str | None:
        """Host and port of the public address, as an Origin header has them."""
        return urlsplit(self.public_url).netloc.lower() if self.public_url else None

    def allows_host(self, header: str) -> bool:
        """Whether a request that names this host is meant for us.

        A page elsewhere may point a name of its own at 127.0.0.1 (DNS rebinding) and would then be of our origin to the
        browser; its name is what gives it away. An address cannot be pointed anywhere, so a server that others may
        reach accepts any.
        """
        name = _without_port(header.lower())
        own = {*LOOPBACK, _bracketed(self.host.lower()), *(other.lower() for other in self.names)}
        if self.public_host:
            own.add(_without_port(self.public_host))
        if not self.is_loopback:
            own.add(socket.gethostname().lower())
        return name in own or (not self.is_loopback and _is_address(name))


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
