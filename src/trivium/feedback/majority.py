"""Majority vote as a reward (test-time RL): what most answers to a prompt say is taken to be right.

Y. Zuo et al., *TTRL: Test-Time Reinforcement Learning*, 2025, arXiv 2504.16084. Added to it here: a vote that is weak
or tied names no label. Everything works on the texts of the answers alone: no prompt comes in here, and so no reference
answer can.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Literal, Self

from pydantic import Field, model_validator

from trivium.config import Strict, VerifierConfig
from trivium.feedback.verdict import Verdict
from trivium.feedback.verifiers.answers import Regex
from trivium.feedback.verifiers.base import (
    MAX_CHARACTERS,
    MAX_NUMBER_CHARACTERS,
    normalise,
    parse_number,
    shorten,
    unparseable,
)
from trivium.options import checked

MAJORITY = "majority"
MINIMUM_GROUP = 3  # of two answers neither is a majority
_SECONDS = 1.0  # longest search of a pattern in one response
# a sign belongs to the number where no word, number or point stands before it; nothing in it can backtrack far
_NUMBERS = r"(?<![\w.])[-+]?[$£€]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d{1,3})?"
_EXACT = Context(prec=2 * MAX_NUMBER_CHARACTERS)  # more digits than a number that is read can have: no rounding
_PLAIN_DIGITS = 20


@dataclass(frozen=True)
class Vote:
    """The outcome of a vote. ``label``: the answer that won, None where the vote abstains; ``share``: the part of *all*
    responses that gave the most frequent answer; ``votes``: how many that are; ``reason``: why it abstains."""

    label: str | None
    share: float
    votes: int
    reason: str = ""


def vote(answers: Sequence[str | None], minimum_share: float = 0.5, minimum_votes: int = 2) -> Vote:
    """The answer that most responses give; equal answers are equal strings, None is a response without one.

    It abstains (label None) where no response has an answer, where several answers share the first place (any order
    among them would be arbitrary), where the winner has fewer than ``minimum_votes`` votes, and where its share of all
    responses, those without an answer included, is below ``minimum_share``.

    >>> vote(["85", "85", "75", None])
    Vote(label='85', share=0.5, votes=2, reason='')
    >>> vote(["85", "85", "75", "75"]).reason
    '2 answers share the first place'
    """
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return Vote(None, 0.0, 0, "no response has an answer")
    label, votes = counts.most_common(1)[0]
    share = votes / len(answers)
    first = sum(count == votes for count in counts.values())
    if first > 1:
        return Vote(None, share, votes, f"{first} answers share the first place")
    if votes < minimum_votes or share < minimum_share:
        return Vote(None, share, votes, f"the most frequent answer has {votes} of {len(answers)} votes")
    return Vote(label, share, votes)


class Majority(Strict):
    """Options of the kind ``majority``: how answers are read, and when a vote counts."""

    extract: Literal["marked", "number", "text", "regex"] = Field(
        "marked",
        description="what votes: what follows the last marker, the last number, the whole response, or a pattern's "
        "last match (its first group, where it has one)",
    )
    marker: str = Field("####", min_length=1, description="marked: stands before the answer; case is ignored")
    pattern: str | None = Field(None, description="regex: the pattern")
    ignore_case: bool = Field(True, description="upper and lower case are equal")
    minimum_share: float = Field(0.5, ge=0, le=1, description="a winner with less than this of all responses is none")
    minimum_votes: int = Field(2, ge=1, description="nor one with fewer votes than these")

    @model_validator(mode="after")
    def _pattern_where_it_is_read(self) -> Self:
        if (self.extract == "regex") != (self.pattern is not None):
            raise ValueError("a pattern is needed with extract: regex, and with it alone")
        if self.extract != "marked" and self.marker != "####":
            raise ValueError(f"the marker is for extract: marked, but extract is {self.extract}")
        Regex(pattern=self.pattern)  # compiles, or says why not
        return self

    def extracted(self, response: str) -> str | None:
        """What a response votes for, in a form in which equal answers are equal; None where it gives no answer.

        A number is compared as one (1,000 and 1000.0 are equal), other text after Unicode normalisation with runs of
        white space as one space. A response of more than 100,000 characters gives no answer.
        """
        if len(response) > MAX_CHARACTERS:
            return None
        answer = self._raw(response)
        if answer is None:
            return None
        number = parse_number(answer.strip().lstrip(":= "))
        if number is not None:
            return _plain(number)
        return normalise(answer, self.ignore_case, True, False) or None

    def _raw(self, response: str) -> str | None:
        if self.extract == "text":
            return response
        if self.extract == "marked":
            found = list(re.finditer(re.escape(self.marker), response, re.IGNORECASE))
            return response[found[-1].end() :] if found else None
        if self.extract == "number":
            return _last(_NUMBERS, response)
        assert self.pattern is not None
        return _last(self.pattern, response)

    def verdicts(self, texts: Sequence[str], groups: Sequence[Hashable]) -> tuple[list[Verdict], list[Vote]]:
        """Verdict and vote for each of ``texts``; ``groups`` says which belong together.

        1 for the answer that won, 0 for another, and 0 for all of a group whose vote abstains: rewards that are all
        alike teach a group nothing. A response without an answer is ``unparseable``; nothing is an ``infra_error``.
        """
        answers = [self.extracted(text) for text in texts]
        members: dict[Hashable, list[str | None]] = {}
        for group, answer in zip(groups, answers, strict=True):
            members.setdefault(group, []).append(answer)
        outcomes = {
            group: vote(of_group, self.minimum_share, self.minimum_votes) for group, of_group in members.items()
        }
        votes = [outcomes[group] for group in groups]
        return [_verdict(answer, outcome) for answer, outcome in zip(answers, votes, strict=True)], votes


def _verdict(answer: str | None, outcome: Vote) -> Verdict:
    if answer is None:
        return unparseable("there is no answer to vote with")
    return Verdict(float(answer == outcome.label), "ok", shorten(answer), outcome.reason)


def _last(pattern: str, text: str) -> str | None:
    """The last match of ``pattern``, or its first group; None where there is none within a second."""
    import regex

    found = None
    try:
        for match in regex.finditer(pattern, text, timeout=_SECONDS):
            found = match.group(1) if match.re.groups else match.group()
    except TimeoutError:
        return None
    return found


def _plain(number: Decimal) -> str:
    """One text for each number, whatever its spelling.

    >>> [_plain(Decimal(text)) for text in ("1000.0", "1e3", "-0", "0.50")]
    ['1000', '1000', '0', '0.5']
    """
    normal = number.normalize(_EXACT) if number else Decimal(0)
    return f"{normal:f}" if abs(normal.adjusted()) <= _PLAIN_DIGITS else str(normal)


def majority_options(config: VerifierConfig) -> Majority:
    """The checked options of a part of kind ``majority``; UserError names a wrong one."""
    return checked(Majority, config.options, MAJORITY)
