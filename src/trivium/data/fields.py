"""Which field of a row is what: names that are recognised, the field map, and records made of rows."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from trivium.data.files import Row
from trivium.data.records import Conversation, Document, LabelledAnswer, Message, Prompt
from trivium.errors import UserError

QUESTIONS = ("messages", "prompt", "instruction", "question")
RESPONSES = ("completion", "output", "answer", "answers", "reference")
ANSWERS = ("answer", "answers", "reference", "completion", "output")
OURS = ("text", "system", "input", "id", "task", *QUESTIONS, *RESPONSES)

_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_BRACES = re.compile(r"\{([^{}]*)\}")


def apply_map(row: Row, fields: Mapping[str, str], ours: tuple[str, ...] = OURS) -> Row:
    """The row with the mapped fields added under our names.

    A value of the map is the name of a field, or, with braces, a template: ``{answer}`` is replaced by the field of
    that name and nothing else is interpreted (what stands between the braces is a name, looked up as it is).

    >>> apply_map(Row({"q": "2+2?", "a": 4.0}, "x"), {"prompt": "q", "completion": "#### {a}"})["completion"]
    '#### 4'
    """
    values = dict(row)
    for name, theirs in fields.items():
        if name not in ours:
            raise UserError(f"the field map names {name!r}, which is none of ours: choose among {', '.join(ours)}")
        if _BRACES.search(theirs):
            values[name] = _fill(theirs, row, name)
        else:
            values[name] = _get(row, theirs, name)
    return Row(values, row.where)


def _fill(template: str, row: Row, ours: str) -> str:
    return _BRACES.sub(lambda match: as_text(_get(row, match[1], ours), row.where, match[1]), template)


def _get(row: Row, field: str, ours: str) -> Any:
    if field not in row:
        raise UserError(f"{row.where}: the field map takes {ours} from {field!r}, but the fields are {_names(row)}")
    return row[field]


def as_text(value: Any, where: str, field: str) -> str:
    """Text as it is, numbers as a person writes them (4.0 is "4"), the first entry of a list."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list) and value:
        return as_text(value[0], where, field)
    raise UserError(
        f"{where}: expected text in field {field!r}, found {_excerpt(value)}: repair it or map another field"
    )


def _excerpt(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, row)) or "none"


def _missing(row: Row, what: str, names: tuple[str, ...], example: str) -> UserError:
    theirs = next(iter(row), "FIELD")
    return UserError(
        f"{row.where}: no field for the {what} ({', '.join(names)}); the fields are {_names(row)}: say which it is "
        f"with a field map, such as fields: {{{example}: {theirs}}}"
    )


def _first(row: Row, names: tuple[str, ...], fields: Mapping[str, str]) -> str | None:
    """The first of ``names`` that the row has a value for; what the field map sets comes before what is found."""
    present = [name for name in names if row.get(name) is not None]
    return next((name for name in present if name in fields), present[0] if present else None)


def document(row: Row, fields: Mapping[str, str]) -> Document:
    """The ``text`` of a row."""
    row = apply_map(row, fields)
    if row.get("text") is None:
        raise _missing(row, "text of a document", ("text",), "text")
    return Document(as_text(row["text"], row.where, "text"))


def conversation(row: Row, fields: Mapping[str, str]) -> Conversation:
    """Messages of a row; if they do not end with the assistant, its answer comes from a response field.

    Recognised: ``messages``; ``prompt`` or ``question`` or ``instruction`` (with ``input``), with ``completion``,
    ``output``, ``answer``, ``answers`` (the first) or ``reference``; ``system`` goes before.
    """
    row = apply_map(row, fields)
    messages, _ = _asked(row, fields)
    if messages[-1].role != "assistant":
        name = _first(row, RESPONSES, fields)
        if name is None:
            raise _missing(row, "assistant's answer", RESPONSES, "completion")
        if _is_messages(row[name]):
            messages += _messages(row[name], row.where, name)
        else:
            messages += (Message("assistant", as_text(row[name], row.where, name)),)
    return Conversation(messages)


def prompt(row: Row, fields: Mapping[str, str]) -> Prompt:
    """What is asked, and the answer from ``answer``, ``answers``, ``reference``, else ``completion`` or ``output``.

    Messages that end with the assistant lose that message; it is the answer if no field gives one. What was not used
    stays in ``metadata``. The id is the row's or a hash of the messages.
    """
    row = apply_map(row, fields)
    messages, used = _asked(row, fields)
    name = _first(row, ANSWERS, fields)
    answer = None if name is None else row[name]
    if messages[-1].role == "assistant":
        answer = messages[-1].content if name is None else answer
        messages = messages[:-1]
    if not messages:
        raise UserError(f"{row.where}: a prompt needs a message before the assistant's: repair the row")
    if _is_messages(answer):
        answer = _messages(answer, row.where, str(name))[-1].content
    task = row.get("task")
    extra = row.get("metadata")
    used |= {str(name), "id", "task", "system"} | ({"metadata"} if isinstance(extra, dict) else set())
    metadata = {key: value for key, value in row.items() if key not in used}
    metadata.update(extra if isinstance(extra, dict) else {})
    identity = row.get("id")
    return Prompt(
        id=message_hash(messages) if identity is None else str(identity),
        messages=messages,
        answer=answer,
        task="" if task is None else str(task),
        metadata=metadata,
    )


def labelled(row: Row, fields: Mapping[str, str]) -> LabelledAnswer:
    """Prompt and answer of a row, as in ``conversation``, and its ``label``: true or false (also 1, 0 and as text)."""
    row = apply_map(row, fields, (*OURS, "label"))
    if "label" not in row:
        raise _missing(row, "label", ("label",), "label")
    good = _LABELS.get(str(row["label"]).strip().lower())
    if good is None:
        raise UserError(
            f"{row.where}: expected true or false in field 'label', found {_excerpt(row['label'])}: repair the row"
        )
    taken = {name: theirs for name, theirs in fields.items() if name != "label"}
    messages = conversation(row, taken).messages
    if len(messages) < 2:
        raise UserError(f"{row.where}: a labelled answer needs a message before it: repair the row")
    asked = messages[:-1]
    return LabelledAnswer(Prompt(message_hash(asked), asked), messages[-1].content, good)


def message_hash(messages: tuple[Message, ...]) -> str:
    """A short name for messages, the same on every machine."""
    text = json.dumps([[message.role, message.content] for message in messages])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _asked(row: Row, fields: Mapping[str, str]) -> tuple[tuple[Message, ...], set[str]]:
    """The messages before the answer, and the fields they came from."""
    name = _first(row, QUESTIONS, fields)
    if name is None:
        raise _missing(row, "user's message", QUESTIONS, "prompt")
    used = {name}
    if name == "messages" or _is_messages(row[name]):
        messages = _messages(row[name], row.where, name)
    else:
        text = as_text(row[name], row.where, name)
        if name == "instruction" and row.get("input") is not None:
            used.add("input")
            extra = as_text(row["input"], row.where, "input")
            text = f"{text}\n\n{extra}" if extra else text
        messages = (Message("user", text),)
    system = row.get("system")
    if system and messages[0].role != "system":
        messages = (Message("system", as_text(system, row.where, "system")), *messages)
    return messages, used


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _messages(value: Any, where: str, field: str) -> tuple[Message, ...]:
    expected = (
        "expected a list of messages, each with a role (system, user, assistant, tool) and a content that is text, "
        "or a list of {type: text or tool, text: …}"
    )
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: field {field!r}: {expected}; found {_excerpt(value)}: repair the row")
    messages = [_message(entry) for entry in value]
    for entry, message in zip(value, messages, strict=True):
        if message is None:
            raise UserError(f"{where}: field {field!r}: {expected}; found {_excerpt(entry)}: repair the row")
    return tuple(message for message in messages if message is not None)


def _message(entry: Any) -> Message | None:
    """The message that ``entry`` is; of a content in parts, those of the type tool are marked as given."""
    if not isinstance(entry, dict) or entry.get("role") not in ("system", "user", "assistant", "tool"):
        return None
    content = entry.get("content")
    if isinstance(content, str):
        return Message(entry["role"], content)
    if not isinstance(content, list):
        return None
    text, given = "", []
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in ("text", "tool"):
            return None
        if not isinstance(part.get("text"), str):
            return None
        if part["type"] == "tool" and part["text"]:
            given.append((len(text), len(text) + len(part["text"])))
        text += part["text"]
    return Message(entry["role"], text, tuple(given))
