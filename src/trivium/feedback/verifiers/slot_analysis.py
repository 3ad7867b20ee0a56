"""What a restaurant text says of its meaning representation: which slots it states, omits and contradicts, and adds."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from trivium.feedback.verifiers.slot_lexicon import (
    ALIASES,
    DENIES_FAMILY,
    EQUIVALENTS,
    LANDMARKS,
    MENTIONS_FAMILY,
    NAMES,
    OUTSIDE,
    STRONG,
    WEAK,
)

MAX_CHARACTERS = 4000  # of a text; references have about 100 and the longest 300
_SLOT = re.compile(r"\s*([A-Za-z][A-Za-z ]*?)\s*\[([^\[\]]*)\]\s*(?:,|$)")
SLOTS = ("name", "eatType", "food", "priceRange", "customer rating", "area", "familyFriendly", "near")


@dataclass(frozen=True)
class SlotReport:
    """Each slot of the meaning representation is in one of the first three; ``added`` are slots it does not have.

    A text that gives a slot its value and also a value that excludes it contradicts the slot.
    """

    stated: tuple[str, ...]
    omitted: tuple[str, ...]
    contradicted: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def slots(self) -> int:
        return len(self.stated) + len(self.omitted) + len(self.contradicted)

    @property
    def errors(self) -> int:
        return len(self.omitted) + len(self.contradicted) + len(self.added)

    @property
    def score(self) -> float:
        """(stated - contradicted - added) / slots, within 0 and 1."""
        return min(1.0, max(0.0, (len(self.stated) - len(self.contradicted) - len(self.added)) / max(1, self.slots)))


def parse_mr(mr: str | Mapping[str, str]) -> dict[str, str]:
    """The slots of a meaning representation, from its text or a mapping. Raises ValueError if it is neither.

    >>> parse_mr("name[Blue Spice], eatType[coffee shop], near[Crowne Plaza Hotel]")
    {'name': 'Blue Spice', 'eatType': 'coffee shop', 'near': 'Crowne Plaza Hotel'}
    """
    if isinstance(mr, Mapping):
        slots = {str(slot): str(value) for slot, value in mr.items()}
    else:
        slots, end = {}, 0
        while match := _SLOT.match(mr, end):
            slots[match[1]] = match[2].strip()
            end = match.end()
        if mr[end:].strip():
            raise ValueError(f"not a meaning representation: {mr[:80]!r}; expected slot[value], slot[value]")
    unknown = [slot for slot in slots if slot not in SLOTS]
    if unknown or not slots:
        raise ValueError(f"unknown slot {unknown[0]!r}; known are {', '.join(SLOTS)}" if unknown else "no slots")
    return slots


def normal_form(text: str) -> str:
    """Lower case, no accents, hyphens and apostrophes as spaces, punctuation apart, one space at each end.

    >>> normal_form("The Café's family-friendly, £20-25.")
    ' the cafe s family friendly , £20 25 . '
    """
    text = unicodedata.normalize("NFKD", text[:MAX_CHARACTERS].replace("£", " £"))[: 2 * MAX_CHARACTERS]
    text = "".join(c for c in text if not unicodedata.combining(c)).lower()
    text = re.sub(r"[-_'’‘`´\"“”*()\u2010-\u2015]", " ", text)
    text = re.sub(r"([,.;:!?])", r" \1 ", text)
    return f" {' '.join(text.split())} "


@lru_cache(maxsize=4096)
def _plain(name: str) -> str:
    return normal_form(name).strip().removeprefix("the ")


@lru_cache(maxsize=512)
def _entity(name: str) -> re.Pattern[str]:
    """Matches a place's name in normal form: without its article, with a possessive, in its known short forms."""
    forms = sorted({_plain(name), *ALIASES.get(_plain(name), ())}, key=len, reverse=True)
    return re.compile(rf" (?:the )?(?:{'|'.join(map(re.escape, forms))})(?: s)?(?= )")


# Other entities are searched in the text as written, with capitals: a giraffe or a mill is no restaurant.
_KNOWN = {name.removeprefix("The "): name for name in (*NAMES, *LANDMARKS)}
_ANY_KNOWN = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(map(re.escape, _KNOWN), key=len, reverse=True))})(?!\w)")


def _take_out(text: str, name: str) -> tuple[str, bool]:
    """The text with the name replaced by a placeholder, and whether it was there."""
    replaced, found = _entity(name).subn(" @", text)
    return replaced, found > 0


def _other_entities(text: str, own: set[str]) -> set[str]:
    return {_KNOWN[found] for found in set(_ANY_KNOWN.findall(text)) if _plain(found) not in own}


def _places(slots: dict[str, str], text: str) -> tuple[str, dict[str, bool], set[str]]:
    """The normal text without names of places, whether ``name`` and ``near`` occur, and which of the two slots are
    given to a place that the meaning representation does not have."""
    own = {_plain(slots[slot]) for slot in ("name", "near") if slot in slots}
    others = _other_entities(text[:MAX_CHARACTERS], own)
    normal, found = normal_form(text), {}
    for slot in sorted(("name", "near"), key=lambda slot: -len(slots.get(slot, ""))):
        if slot in slots:
            normal, found[slot] = _take_out(normal, slots[slot])
    wrong = set()
    for other in sorted(others):
        normal, there = _take_out(normal, other)
        if there:
            wrong.add("near" if other in LANDMARKS and not (other in NAMES and "near" in slots) else "name")
    return normal, found, wrong


def _asserted(slot: str, text: str, lexicon: dict[str, dict[str, re.Pattern[str]]]) -> set[str]:
    """The values that the text gives the slot, by one lexicon."""
    if slot == "familyFriendly":
        # by sentence, so that a text that says both is seen to say both
        parts = [(part, bool(DENIES_FAMILY.search(part))) for part in re.split(r"(?<= )[.;!?](?= )", text)]
        return {"no" if denied else "yes" for part, denied in parts if denied or MENTIONS_FAMILY.search(part)}
    if slot == "area" and lexicon is STRONG:
        text = OUTSIDE.sub(" ", text)
    values = {value for value, pattern in lexicon[slot].items() if pattern.search(text)}
    if slot == "eatType" and values & {"pub", "coffee shop"}:
        values.discard("restaurant")  # people call a pub a restaurant too
    if slot == "food" and "Fast food" in values and len(values) > 1:
        values.discard("Fast food")
    return values


def _accepted(slot: str, value: str, equivalents: bool) -> set[str]:
    """The values that state ``value``."""
    for group in EQUIVALENTS.get(slot, ()) if equivalents else ():
        if value in group:
            return set(group)
    return {value}


def slot_report(mr: str | Mapping[str, str], text: str, equivalents: bool = True) -> SlotReport:
    """Which slots of ``mr`` the text states, omits and contradicts, and which it adds.

    ``equivalents``: a value may be given by the one that people use for it ("cheap" for "less than £20", "5 out of 5"
    for "high"), or loosely ("breakfast" for English food). Raises ValueError if ``mr`` is not a meaning representation.

    >>> slot_report("name[Aromi], food[Italian], area[riverside]", "Aromi serves Chinese food to families.")
    SlotReport(stated=('name',), omitted=('area',), contradicted=('food',), added=('familyFriendly',))
    """
    slots = parse_mr(mr)
    normal, found, wrong = _places(slots, text)
    result: dict[str, list[str]] = {"stated": [], "omitted": [], "contradicted": [], "added": []}
    for slot in SLOTS:
        if slot in ("name", "near"):
            if slot not in slots:
                outcome = "added" if slot in wrong else None
            else:
                outcome = "contradicted" if slot in wrong else "stated" if found[slot] else "omitted"
        else:
            outcome = _outcome(slot, slots.get(slot), normal, equivalents)
        if outcome:
            result[outcome].append(slot)
    return SlotReport(**{kind: tuple(names) for kind, names in result.items()})


def _outcome(slot: str, value: str | None, text: str, equivalents: bool) -> str | None:
    """Where a slot of the fixed lexicon belongs; None if it is neither in the representation nor in the text."""
    asserted = _asserted(slot, text, STRONG)
    if value is None:
        if slot == "eatType":
            asserted.discard("restaurant")  # what any place to eat is called
        return "added" if asserted else None
    excluded = asserted - _accepted(slot, value, True)
    if slot == "eatType":
        excluded.discard("restaurant")
    if excluded:
        return "contradicted"
    accepted = _accepted(slot, value, equivalents)
    if asserted & accepted:
        return "stated"
    return "stated" if equivalents and _loosely(slot, text, accepted) else "omitted"


def _loosely(slot: str, text: str, accepted: set[str]) -> bool:
    """Whether loose words state an accepted value. Other words for other values beside them ("budget, moderate and
    fancy") are a hedge that would fit every representation, and state none; "affordable" alone may mean two."""
    rest = text
    for value in accepted & WEAK.get(slot, {}).keys():
        rest = WEAK[slot][value].sub(" ", rest)
    return rest != text and not any(WEAK[slot][value].search(rest) for value in WEAK[slot].keys() - accepted)


def slot_error_rate(pairs: Iterable[tuple[str | Mapping[str, str], str]], equivalents: bool = True) -> float:
    """(omitted + contradicted + added slots) / slots, pooled over (meaning representation, text) pairs; 0.0 of none."""
    reports = [slot_report(mr, text, equivalents) for mr, text in pairs]
    return sum(report.errors for report in reports) / max(1, sum(report.slots for report in reports))
