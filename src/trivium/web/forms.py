"""From the posted form to the arguments of ``Store.submit``. A form that our page cannot have sent is refused.

The form names answers by the places they are shown at, the store by their numbers in the task: what turns one into the
other is the assignment's ``displayed``.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from trivium.feedback.rankings.record import UNRANKED, Ranking, dense_tiers
from trivium.web.views import label, visible

if TYPE_CHECKING:
    from trivium.feedback.rankings.store import Assignment

LIMITS = {"note": 10_000, "reason": 1_000, "flag": 2_000, "edited": 100_000}  # characters
_FIELDS = ("csrf", "key", "assignment", "all_bad", "action", "strength", "edited_from", "seconds", *LIMITS)
_TIER = re.compile(r"tier-([0-9]{1,3})")
_KEY = re.compile(r"[A-Za-z0-9_-]{8,128}")
_LONGEST_SECONDS = 7 * 24 * 3600  # a page that stood open for longer tells nothing about pace


class FormError(Exception):
    """The form is not one that can be stored. The sentence is for the annotator; ``status`` is that of HTTP."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Submission:
    """``arguments`` are those of ``Store.submit`` beside assignment, annotator and key."""

    key: str
    arguments: dict[str, Any] = field(default_factory=dict)


def read_form(body: bytes, content_type: str) -> dict[str, str]:
    """The fields of a urlencoded form. Raises FormError for another kind, broken text, or a field given twice."""
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise FormError("the form must be sent as application/x-www-form-urlencoded", 415)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64)
    except (UnicodeDecodeError, ValueError):
        raise FormError("the form cannot be read; reload the page and try again") from None
    values = dict(pairs)
    if len(values) < len(pairs):
        raise FormError("the form gives a field twice; reload the page and try again")
    for name, value in values.items():
        if "\x00" in name or "\x00" in value:
            raise FormError("the form holds a character that is no text (NUL); remove it")
        values[name] = value.replace("\r\n", "\n")  # a textarea sends its line breaks so
    return values


def submission(form: Mapping[str, str], assignment: "Assignment") -> Submission:
    """What the annotator said about the answers of ``assignment``. Raises FormError with a sentence."""
    displayed = assignment.displayed
    _check_names(form, len(displayed))
    for name, limit in LIMITS.items():
        if len(form.get(name, "")) > limit:
            raise FormError(f"{name} has more than {limit:,} characters; shorten it")
    key = form.get("key", "")
    if not _KEY.fullmatch(key):
        raise FormError("the form lacks its key; reload the page and try again")
    flag = form.get("flag", "").strip()
    arguments: dict[str, Any] = {
        "flags": (flag,) if flag else (),
        "note": form.get("note", "").strip(),
        "seconds": _seconds(form.get("seconds", "")),
    }
    action = form.get("action", "submit")
    if action == "skip":
        reason = form.get("reason", "").strip()
        if not reason:
            raise FormError("say in a few words why you skip this task")
        return Submission(key, {**arguments, "tiers": (UNRANKED,) * len(displayed), "skipped": reason})
    if action != "submit":
        raise FormError(f"the form asks for {action[:40]!r}; it can submit or skip")
    edited, edited_from = _edited(form, assignment)
    # Read in the order shown: the first answer that a refusal names tells nothing of their order in the task.
    tiers = {number: _tier(form.get(f"tier-{place}", ""), place) for place, number in enumerate(displayed)}
    arguments |= {
        "tiers": dense_tiers([tiers[number] for number in range(len(displayed))]),
        "all_bad": _switch(form.get("all_bad", "")),
        "strength": _strength(form.get("strength", "")),
        "edited": edited,
        "edited_from": edited_from,
    }
    return Submission(key, arguments)


def is_said_by(ranking: Ranking, said: Submission) -> bool:
    """Whether the ranking is what the form says; the key may have found another. How long it took is no matter."""
    return all(getattr(ranking, name) == value for name, value in said.arguments.items() if name != "seconds")


def _check_names(form: Mapping[str, str], answers: int) -> None:
    for name in form:
        match = _TIER.fullmatch(name)
        if match and int(match[1]) >= answers:
            answer = label(int(match[1]))
            raise FormError(f"the form ranks answer {answer}, which this task does not have; reload the page")
        if not match and name not in _FIELDS:
            raise FormError(f"the form has a field {name[:40]!r}, which our page does not send; reload the page")


def _tier(value: str, place: int) -> int:
    """Tiers from 1, best first; nothing for an answer that is left unranked."""
    if value == "":
        return UNRANKED
    if not re.fullmatch("[1-9]", value):
        raise FormError(f"answer {label(place)} is given the rank {value[:20]!r}; ranks go from 1 to 9")
    return int(value)


def _switch(value: str) -> bool:
    if value not in ("", "on"):
        raise FormError(f"all_bad is {value[:20]!r}; it is on or left out")
    return value == "on"


def _strength(value: str) -> float | None:
    if value not in ("", "1", "2", "3"):
        raise FormError(f"strength is {value[:20]!r}; choose 1, 2 or 3, or leave it out")
    return float(value) if value else None


def _edited(form: Mapping[str, str], assignment: "Assignment") -> tuple[str | None, int | None]:
    """A better answer and the number of the one it was made from. One that changes nothing is none."""
    text, source = form.get("edited", ""), form.get("edited_from", "")
    responses = assignment.task.responses
    if source and (not re.fullmatch("[0-9]{1,3}", source) or int(source) >= len(responses)):
        raise FormError("the edit starts from an answer that this task does not have; reload the page")
    number = assignment.displayed[int(source)] if source else None
    if not text.strip() or (number is not None and _in_a_field(text) == _in_a_field(responses[number].text)):
        return None, None
    return text, number


def _in_a_field(text: str) -> str:
    """A text as a page can show it and send it back."""
    return visible(text).replace("\r\n", "\n").replace("\r", "\n")


def _seconds(value: str) -> float | None:
    """How long the annotator took, as the page measured it; nothing where it could not (no JavaScript)."""
    if value == "":
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise FormError(f"seconds is {value[:20]!r}; it is a number from 0")
    return seconds if seconds <= _LONGEST_SECONDS else None
