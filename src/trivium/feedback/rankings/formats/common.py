"""What the formats share: fields with a clear error, and messages."""

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from trivium.data import fields
from trivium.data.files import Row
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.rankings.record import Ranking, problem_of


def refuse(where: str, field: str, expected: str, value: Any) -> NoReturn:
    """UserError for a field that does not hold what it should."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:60] + "…"
    raise UserError(f"{where}: field {field!r}: expected {expected}, found {shown}: repair the row")


def required(row: Row, field: str) -> Any:
    if row.get(field) is None:
        raise UserError(
            f"{row.where}: field {field!r} is missing; the fields are {', '.join(map(str, row)) or 'none'}: add it, or "
            "name another format"
        )
    return row[field]


def text(row: Row, field: str) -> str:
    value = required(row, field)
    if not isinstance(value, str):
        refuse(row.where, field, "text", value)
    return value


def number(value: Any, where: str, field: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        refuse(where, field, "a number", value)
    return float(value)


def listed(row: Row, field: str) -> list[Any]:
    """A list; in a CSV file, where a cell is text, one written as JSON."""
    value = required(row, field)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            refuse(row.where, field, "a list", value)
    if not isinstance(value, list):
        refuse(row.where, field, "a list", value)
    return value


def texts(row: Row, field: str) -> list[str]:
    value = listed(row, field)
    for entry in value:
        if not isinstance(entry, str):
            refuse(row.where, field, "a list of texts", entry)
    return value


def prompt(value: Any, where: str, **more: Any) -> Prompt:
    """The prompt of a text (what the user says) or of a list of messages, read as ``data.fields`` reads one."""
    if isinstance(value, list) and value and isinstance(value[-1], dict) and value[-1].get("role") == "assistant":
        refuse(where, "prompt", "messages that end before the assistant's", value[-1])
    asked = fields.prompt(Row({"prompt": value}, where), {}).messages
    return of_messages(asked, **more)


def of_messages(messages: Sequence[Message], **more: Any) -> Prompt:
    return Prompt(id=fields.message_hash(tuple(messages)), messages=tuple(messages), **more)


def checked(ranking: Ranking, where: str) -> Ranking:
    """The ranking, if nothing is wrong with it."""
    if problem := problem_of(ranking):
        raise UserError(f"{where}: the ranking is not valid: {problem}")
    return ranking
