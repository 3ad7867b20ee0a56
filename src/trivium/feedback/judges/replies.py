"""A judge server's answer is text from elsewhere: read with limits, by hand, and never trusted to have any shape."""

import json
import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trivium.feedback.judges.verdicts import Position

MAX_BODY = 4 * 2**20  # bytes of an answer that are read
MAX_TEXT = 100_000  # characters of a text that are kept
_MAX_POSITIONS = 16
_MAX_ALTERNATIVES = 64
_MAX_TOKENS = 10**9
_MAX_WORDS = 200  # characters of a server's own words in our sentences
Hide = Callable[[str], str]


class NotACompletion(Exception):
    """What came is no chat completion; the message says what it looks like."""


@dataclass(frozen=True)
class Candidate:
    """One of the answers of a call. ``positions`` is None where there are no log-probabilities."""

    text: str
    refused: str
    finish: str
    positions: tuple[Position, ...] | None


@dataclass(frozen=True)
class Completion:
    candidates: tuple[Candidate, ...]
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class ErrorWords:
    """What a server says in an answer with an error status."""

    message: str
    code: str = ""
    parameter: str = ""

    @property
    def all(self) -> str:
        return f"{self.code} {self.parameter} {self.message}".lower()


def clean(text: str, hide: Hide = str) -> str:
    """A text without half surrogates and control characters but line breaks and tabs; ``hide`` takes out secrets."""
    text = hide(text.replace("\r\n", "\n"))
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    return hide(text)  # once more: a control character inside could have hidden the secret


def read_completion(content: bytes, hide: Hide = str) -> Completion:
    """The completion in the body of an answer; bytes that are no UTF-8 become replacement characters.

    Raises:
        NotACompletion: no JSON, or JSON that is something else.
    """
    body = _json(content)
    if body is None:
        raise NotACompletion(f"it answered with {_looks_like(content)} in place of JSON")
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list):
        error = body.get("error") if isinstance(body, dict) else None
        if error:
            raise NotACompletion(f"it answered with an error: {error_words(content, hide).message}")
        raise NotACompletion("it answered with JSON that is no chat completion")
    usage = _mapping(body.get("usage"))
    return Completion(
        tuple(_candidate(_mapping(choice), hide) for choice in choices[:_MAX_ALTERNATIVES]),
        _tokens(usage.get("prompt_tokens")),
        _tokens(usage.get("completion_tokens")),
    )


def error_words(content: bytes, hide: Hide = str) -> ErrorWords:
    """The server's explanation of an error, on one line and short; a web page is called one."""
    body = _json(content)
    if body is None:
        return ErrorWords(_looks_like(content))
    error = body.get("error", body) if isinstance(body, dict) else body
    fields = _mapping(error)
    message = next((fields[key] for key in ("message", "detail") if isinstance(fields.get(key), str)), None)
    if message is None:
        message = error if isinstance(error, str) else "no explanation"
    code = fields.get("code") if isinstance(fields.get("code"), str) else fields.get("type")
    return ErrorWords(
        _line(message, hide),
        _line(code, hide) if isinstance(code, str) else "",
        _line(fields["param"], hide) if isinstance(fields.get("param"), str) else "",
    )


def _candidate(choice: dict[str, Any], hide: Hide) -> Candidate:
    message = _mapping(choice.get("message"))
    content, refusal = message.get("content"), message.get("refusal")
    finish = choice.get("finish_reason")
    return Candidate(
        # One character more than is kept, so that the reader sees that it was too long.
        text=clean(content[: MAX_TEXT + 1], hide) if isinstance(content, str) else "",
        refused=_line(refusal, hide) if isinstance(refusal, str) else "",
        finish=finish if isinstance(finish, str) else "",
        positions=_positions(_mapping(choice.get("logprobs")).get("content")),
    )


def _positions(content: Any) -> tuple[Position, ...] | None:
    """Tokens with their alternatives; None where a server gives no log-probabilities, or none that mean anything."""
    if not isinstance(content, list) or not content:
        return None
    positions = []
    for entry in map(_mapping, content[:_MAX_POSITIONS]):
        token = entry.get("token")
        top = entry.get("top_logprobs")
        if not isinstance(token, str) or not isinstance(top, list):
            return None
        alternatives = [pair for item in top[:_MAX_ALTERNATIVES] if (pair := _alternative(_mapping(item))) is not None]
        if all(text != token for text, _ in alternatives) and (own := _alternative(entry)) is not None:
            alternatives.append(own)
        if not alternatives:
            return None
        positions.append(Position(token, tuple(alternatives)))
    return tuple(positions)


def _alternative(item: dict[str, Any]) -> tuple[str, float] | None:
    token, value = item.get("token"), item.get("logprob")
    if not isinstance(token, str) or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Rounding may lift a certain token a little above 0; more is no log-probability.
    if value != value or value > 1e-3:  # the first: not a number
        return None
    return token, math.exp(max(min(value, 0), -10_000))


def _tokens(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_TOKENS else 0


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None


def _looks_like(content: bytes) -> str:
    start = content[:500].lstrip().lower()
    if not start:
        return "nothing"
    return "a web page" if start.startswith(b"<") else "something else"


def _line(text: str, hide: Hide) -> str:
    text = " ".join(clean(text[: 10 * _MAX_WORDS], hide).split())
    return text if len(text) <= _MAX_WORDS else text[: _MAX_WORDS - 1] + "…"
