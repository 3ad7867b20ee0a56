"""The ranking record: one schema for human, AI and simulated annotators, from the page to the loss.

A ranking is an ordered partition of a prompt's responses into tiers: tier 0 is best, an equal tier is a tie, -1 is
unranked. What was not said stays unsaid: nothing here turns a tie or an unranked response into an order.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import NoneType
from typing import Any

from trivium.data.records import Message, Prompt

KINDS = ("human", "ai", "simulated")
UNRANKED = -1


@dataclass(frozen=True)
class Response:
    """An answer and where it comes from: ``model`` (stage, directory or system), the SHA-256 of its weights
    (``checkpoint``), its sampling settings. ``finish_reason`` is ``stop`` or ``length`` (cut off)."""

    text: str
    model: str = ""
    checkpoint: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
    finish_reason: str = "stop"
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """What one annotator said about the responses to one prompt under one criterion.

    ``tiers``: one a response, dense from 0. ``displayed``: numbers of the responses in the order they were shown in.
    ``all_bad``: none is acceptable (tiers may still order them). ``skipped``: why nothing was ranked. ``strength``: how
    much better a tier is than the next (1 slightly, 2 clearly, 3 much). ``edited``: a better response, written from
    number ``edited_from`` (None: from nothing); it becomes a demonstration. ``supersedes``: the id of the ranking that
    this one corrects. ``seconds``: how long it took. ``preferences``: (i, j, probability that response i is better than
    j), with i < j and each pair at most once, of an annotator that says how sure it is, such as a judge; the tiers are
    their summary, and a pair that is not among them was not compared.
    """

    prompt: Prompt
    responses: tuple[Response, ...]
    tiers: tuple[int, ...]
    annotator: str
    kind: str = "human"
    criterion: str = "overall"
    displayed: tuple[int, ...] = ()
    time: str = ""  # UTC, ISO 8601
    id: str = ""
    all_bad: bool = False
    skipped: str | None = None
    flags: tuple[str, ...] = ()
    strength: float | None = None
    note: str = ""
    edited: str | None = None
    edited_from: int | None = None
    supersedes: str | None = None
    task: str = ""
    seconds: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    preferences: tuple[tuple[int, int, float], ...] = ()

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) response numbers of every strict preference; ties and unranked responses give none."""
        ranked = [number for number, tier in enumerate(self.tiers) if tier != UNRANKED]
        return [(i, j) for i in ranked for j in ranked if self.tiers[i] < self.tiers[j]]

    @property
    def ties(self) -> list[tuple[int, int]]:
        ranked = [number for number, tier in enumerate(self.tiers) if tier != UNRANKED]
        return [(i, j) for i in ranked for j in ranked if i < j and self.tiers[i] == self.tiers[j]]

    def with_id(self) -> "Ranking":
        """The ranking with an id made from its content, if it has none: importing a file twice stores it once."""
        if self.id:
            return self
        text = json.dumps(to_row(self), sort_keys=True, ensure_ascii=False)
        return replace(self, id=hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest())


def dense_tiers(tiers: Sequence[int]) -> tuple[int, ...]:
    """The same order with tiers counted from 0 without gaps; negative stays unranked.

    >>> dense_tiers([3, 7, 3, -1])
    (0, 1, 0, -1)
    """
    numbers = {tier: number for number, tier in enumerate(sorted({tier for tier in tiers if tier >= 0}))}
    return tuple(numbers.get(tier, UNRANKED) for tier in tiers)


def tiers_from_scores(scores: Sequence[float]) -> tuple[int, ...]:
    """Tiers of responses with scores, higher is better, equal is a tie.

    >>> tiers_from_scores([100.0, 75.0, 100.0])
    (0, 1, 0)
    """
    order = {score: number for number, score in enumerate(sorted(set(scores), reverse=True))}
    return tuple(order[score] for score in scores)


def problem_of(ranking: Ranking) -> str:
    """What is wrong with a ranking, as a clause that tells what to do; empty if nothing is."""
    number = len(ranking.responses)
    ranked = [tier for tier in ranking.tiers if tier != UNRANKED]
    if number < 2:
        return f"it has {number} response{'s' * (number != 1)}; give at least 2"
    if len(ranking.tiers) != number:
        return f"it has {len(ranking.tiers)} tiers for {number} responses; give one a response (-1: unranked)"
    if ranking.tiers != dense_tiers(ranking.tiers):
        return f"its tiers {list(ranking.tiers)} skip a number; count them from 0 without gaps (-1: unranked)"
    if ranking.displayed and sorted(ranking.displayed) != list(range(number)):
        return f"its displayed order {list(ranking.displayed)} is no order of the numbers 0 to {number - 1}"
    if ranking.kind not in KINDS:
        return f"its annotator's kind is {ranking.kind!r}; use one of {', '.join(KINDS)}"
    if not ranking.annotator:
        return "it names no annotator"
    if ranking.edited is not None and not ranking.edited.strip():
        return "its edited response is empty; write one or leave it out"
    if ranking.edited_from is not None and not 0 <= ranking.edited_from < number:
        return f"it edits response {ranking.edited_from}, but they are numbered 0 to {number - 1}"
    if ranking.strength is not None and not 0 <= ranking.strength <= 3:
        return f"its strength is {ranking.strength}; use 0 to 3, or leave it out"
    if ranking.preferences and (problem := _problem_of_preferences(ranking)):
        return problem
    if ranking.skipped is not None:
        return "it is skipped and ranks too; do one of the two" if ranked else ""
    if len(ranked) < 2 and not ranking.all_bad and ranking.edited is None:
        return "it ranks fewer than two responses; rank two, mark all as bad, or skip with a reason"
    return ""


def _problem_of_preferences(ranking: Ranking) -> str:
    number, seen = len(ranking.responses), set()
    for first, second, probability in ranking.preferences:
        if not 0 <= first < second < number:
            return (
                f"it prefers between {first} and {second}; name two of the numbers 0 to {number - 1}, lower one first"
            )
        if (first, second) in seen:
            return f"it prefers between {first} and {second} twice; give each pair once"
        if UNRANKED in (ranking.tiers[first], ranking.tiers[second]):
            return (
                f"it prefers between {first} and {second}, one of which is unranked; rank both, or leave the pair out"
            )
        if not 0 <= probability <= 1:
            return f"it gives {first} over {second} the probability {probability}; use 0 to 1"
        seen.add((first, second))
    return ""


# ---- rows of a JSONL file --------------------------------------------------------------------------------------------


def to_row(ranking: Ranking) -> dict[str, Any]:
    """The ranking as plain data; what has its default is left out, so that rows stay readable. Lossless."""
    row: dict[str, Any] = {}
    for item in fields(Ranking):
        value = getattr(ranking, item.name)
        if item.name == "prompt":
            row["prompt"] = _prompt_row(value)
        elif item.name == "responses":
            row["responses"] = [_without_defaults(response) for response in value]
        elif item.name == "preferences":
            if value:
                row["preferences"] = preference_rows(value)
        elif isinstance(value, tuple):
            if value or item.name == "tiers":
                row[item.name] = list(value)
        elif item.name in ("annotator", "kind") or not _is_default(value) or (value == "" and item.default != ""):
            row[item.name] = value
    return row


def preference_rows(preferences: Sequence[tuple[int, int, float]]) -> list[list[float]]:
    """Preferences as plain lists. 1 and 1.0 are the same probability and are written alike."""
    return [[int(first), int(second), float(probability)] for first, second, probability in preferences]


def from_row(row: Mapping[str, Any]) -> Ranking:
    """The ranking of a row that ``to_row`` wrote. Raises ValueError with what is wrong."""
    known = {item.name for item in fields(Ranking)}
    unknown = [key for key in row if key not in known]
    if unknown:
        raise ValueError(f"a ranking has no field {unknown[0]!r}")
    for key in ("prompt", "responses", "tiers", "annotator"):
        if key not in row:
            raise ValueError(f"the field {key!r} is missing")
    values = dict(row)
    values["prompt"] = _prompt_of(row["prompt"])
    values["responses"] = tuple(_response_of(item) for item in _listed(row, "responses"))
    for key in ("tiers", "displayed", "flags"):
        if key in row:
            values[key] = tuple(_listed(row, key))
    if not all(type(tier) is int for tier in values["tiers"]):
        raise ValueError(f"tiers must be whole numbers, found {row['tiers']!r}")
    if not all(type(number) is int for number in values.get("displayed", ())):
        raise ValueError(f"displayed must be whole numbers, found {row['displayed']!r}")
    if not all(isinstance(flag, str) for flag in values.get("flags", ())):
        raise ValueError(f"flags must be texts, found {row['flags']!r}")
    if "preferences" in row:
        values["preferences"] = tuple(_preference_of(item) for item in _listed(row, "preferences"))
    _check_fields(values)
    ranking = Ranking(**values)
    if problem := problem_of(ranking):
        raise ValueError(f"the ranking is not valid: {problem}")
    return ranking


_TEXT: tuple[tuple[type, ...], str] = ((str,), "text")
_WORDS = ((str, NoneType), "text")
_NUMBER = ((int, float, NoneType), "a number")
_OBJECT = ((dict,), "an object")
_FIELDS = dict.fromkeys(("annotator", "kind", "criterion", "time", "id", "note", "task"), _TEXT)
_FIELDS |= dict.fromkeys(("model", "checkpoint", "finish_reason"), _TEXT)
_FIELDS |= dict.fromkeys(("skipped", "edited", "supersedes"), _WORDS) | {"strength": _NUMBER, "seconds": _NUMBER}
_FIELDS |= {"all_bad": ((bool,), "true or false"), "edited_from": ((int, NoneType), "a whole number")}
_FIELDS |= {"sampling": _OBJECT, "metadata": _OBJECT}


def _check_fields(values: Mapping[str, Any], before: str = "") -> None:
    """That fields hold what their names say: the text "false" would count as true, a number as a name breaks later."""
    for name, (kinds, words) in _FIELDS.items():
        value = values.get(name)
        if name in values and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise ValueError(f"{before}{name} must be {words}, found {value!r}")


def _preference_of(value: Any) -> tuple[int, int, float]:
    numbers = list(value) if isinstance(value, list | tuple) else []
    known = len(numbers) == 3 and all(type(number) in (int, float) for number in numbers)
    # Parquet has one type for all three of them
    if not known or not all(type(number) is int or number.is_integer() for number in numbers[:2]):
        raise ValueError(f"preferences must be lists of two response numbers and a probability, found {value!r}")
    first, second, probability = numbers
    return int(first), int(second), float(probability) if 0 <= probability <= 1 else probability


def _listed(row: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(row[key], list | tuple):
        raise ValueError(f"{key} must be a list, found {row[key]!r}")
    return list(row[key])


def _prompt_row(prompt: Prompt) -> dict[str, Any]:
    row = _without_defaults(prompt)
    return {**row, "messages": [{"role": message.role, "content": message.content} for message in prompt.messages]}


def _prompt_of(value: Any) -> Prompt:
    if not isinstance(value, Mapping) or not isinstance(value.get("messages"), list) or not value["messages"]:
        raise ValueError("prompt must hold messages, a list of {role, content}")
    for message in value["messages"]:
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            raise ValueError(f"prompt.messages: expected a role and a content that are text, found {message!r}")
    messages = tuple(Message(message["role"], message["content"]) for message in value["messages"])
    unknown = set(value) - {item.name for item in fields(Prompt)}
    if unknown:
        raise ValueError(f"prompt has no field {sorted(unknown)[0]!r}")
    from trivium.data.fields import message_hash

    # Parquet fills the fields that other rows have with None.
    given = {key: entry for key, entry in value.items() if entry is not None or key == "answer"}
    given |= {"messages": messages, "id": str(value.get("id") or message_hash(messages))}
    _check_fields(given, "prompt.")
    return Prompt(**given)


def _response_of(value: Any) -> Response:
    if isinstance(value, str):
        return Response(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("text"), str):
        raise ValueError(f"a response is a text or an object with a text, found {value!r}")
    unknown = set(value) - {item.name for item in fields(Response)}
    if unknown:
        raise ValueError(f"a response has no field {sorted(unknown)[0]!r}")
    given = {key: entry for key, entry in value.items() if entry is not None}
    _check_fields(given, "a response's ")
    return Response(**given)


def _is_default(value: Any) -> bool:
    return value is None or value is False or value in ("", {})  # 0 is a value: response number 0, strength 0


def _without_defaults(value: Any) -> dict[str, Any]:
    row = {}
    for item in fields(value):
        entry = getattr(value, item.name)
        # A prompt's answer may be anything, an empty text too; None alone means that there is none.
        if item.name in ("text", "id") or (entry is not None if item.name == "answer" else entry not in ("", None, {})):
            row[item.name] = entry
    if row.get("finish_reason") == "stop":
        del row["finish_reason"]
    return row
