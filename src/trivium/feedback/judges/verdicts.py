"""From what a server tells about an answer to probabilities of the choices: log-probabilities, or counted samples.

Both read the *beginning* of an answer. Before a choice, whitespace, quotes, brackets and marks of emphasis are skipped,
and upper and lower case are equal unless the choices differ by case alone: ``**A** is better`` is A. Where a sentence
goes on they are not equal, for ``a good answer`` votes for nobody. After a choice must come the end or something that
is no letter and no digit, and a number must not go on: ``Answer``, ``15`` and ``7.5`` are none of A, 1 and 7.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Below this share of the probability on the choices the model is not choosing: it refuses, or talks about something.
MIN_MASS = 0.5
# Up to this share may rest on a token that could be one choice or the beginning of another ("1" of "10") without a look
# at what follows; it is counted for the shorter one.
OPEN_MASS = 0.05
# Quotes, brackets, emphasis, and how some servers write a space in front of a token.
_SKIPPED = " \t\r\n\v\f\"'`´‘’“”«»*_#([{<>▁Ġ"
_SENTENCE_GOES_ON = re.compile(r"\s+\w")
_NUMBER_GOES_ON = re.compile(r"[.,–-]\d")


@dataclass(frozen=True)
class Position:
    """A place of the answer: the ``token`` that was sampled, and the likeliest ``alternatives`` (itself among them)
    with their probabilities."""

    token: str
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Verdict:
    """``probabilities`` of the choices, adding up to 1; else ``missing`` says why there are none. ``undecided``: too
    much rests on a token whose continuation is not known, so that only samples can tell."""

    probabilities: tuple[float, ...] = ()
    missing: str = ""
    undecided: bool = False


class _Choices:
    """The choices as they are looked for in texts."""

    def __init__(self, choices: Sequence[str]) -> None:
        folded = [choice.strip(_SKIPPED).casefold() for choice in choices]
        self._fold = len(set(folded)) == len(folded)
        self.spellings = [self.normal(choice) for choice in choices]
        self._written = [choice.lstrip(_SKIPPED) for choice in choices]

    def normal(self, text: str) -> str:
        text = text.lstrip(_SKIPPED)
        return text.casefold() if self._fold else text

    def begun(self, text: str, ended: bool) -> int | None:
        """The choice that ``text`` begins with and that is over: by what follows it, or since the text has ended."""
        text, written = self.normal(text), text.lstrip(_SKIPPED)
        for index, choice in enumerate(self.spellings):
            if text.startswith(choice):
                if not written.startswith(self._written[index]) and _SENTENCE_GOES_ON.match(text, len(choice)):
                    continue  # "a good answer"
                rest = text[len(choice) :]
                if not rest:
                    over = ended
                else:
                    number = choice[-1:].isdigit() and _NUMBER_GOES_ON.match(rest) is not None
                    over = not rest[0].isalnum() and not number
                if over:
                    return index
        return None

    def possible(self, text: str) -> list[int]:
        """The choices that ``text`` is, or may become."""
        text = self.normal(text)
        return [index for index, choice in enumerate(self.spellings) if text and choice.startswith(text)]


def count_samples(texts: Sequence[str], choices: Sequence[str]) -> Verdict:
    """Frequencies of the choices among sampled answers; an answer that begins with none of them is left out.

    >>> count_samples(["A", "B: shorter", "I cannot say", "a"], ["A", "B"]).probabilities
    (0.6666666666666666, 0.3333333333333333)
    """
    known = _Choices(choices)
    votes = [vote for text in texts if (vote := known.begun(text, ended=True)) is not None]
    if not votes:
        begins = f"; the first begins {texts[0].strip()[:40]!r}" if texts else ""
        return Verdict(missing=f"no verdict in {len(texts)} sampled answers{begins}")
    return Verdict(tuple(votes.count(index) / len(votes) for index in range(len(choices))))


def read_positions(positions: Sequence[Position], choices: Sequence[str], answer: str = "") -> Verdict:
    """Probabilities of the choices from the log-probabilities of an answer's tokens, scaled to add up to 1.

    What counts is the first sampled token with more than skipped characters. Each of its alternatives gives its
    probability to the choice it is, or is the beginning of. A token that is a choice *and* the beginning of another
    ("1" where 10 is a choice) is the shorter one if the longer has a token of its own among the alternatives; else,
    where it was sampled, the next token's alternatives divide its probability; else it stays open, and above
    ``OPEN_MASS`` the verdict is ``undecided``. A sampled token that the rest of the answer shows to be no choice ("A"
    of "A" "nswer") counts for none.

    With the choices 1 and 10, where "1" (0.6) was sampled and then "0" (0.25) or a stop (0.75), and "10" has no token:

    >>> answer = [Position("1", (("1", 0.6), ("7", 0.4))), Position("", (("", 0.75), ("0", 0.25)))]
    >>> [round(probability, 9) for probability in read_positions(answer, ["1", "10", "7"]).probabilities]
    [0.45, 0.15, 0.4]

    ``answer`` is its text, for the sentence that says why a verdict is missing.
    """
    known = _Choices(choices)
    start = next((index for index, position in enumerate(positions) if known.normal(position.token)), None)
    shown = f"the answer begins {answer.strip()[:40]!r}"
    if start is None:
        return Verdict(missing=f"no verdict: {shown}")
    masses, unclear = _spread(known, positions, start, "")
    if sum(unclear) > OPEN_MASS:
        return Verdict(undecided=True)
    masses = [mass + more for mass, more in zip(masses, unclear[:-1], strict=True)]
    total = sum(masses)
    if total < MIN_MASS:
        return Verdict(missing=f"no verdict: the choices hold {total:.2f} of the probability; {shown}")
    return Verdict(tuple(mass / total for mass in masses))


def _spread(known: _Choices, positions: Sequence[Position], place: int, before: str) -> tuple[list[float], list[float]]:
    """Probability of each choice given that the answer began with ``before``; and, apart, of tokens that may be this
    choice or the beginning of a longer one, last of all those that are only the beginning of several."""
    masses = [0.0] * len(known.spellings)
    unclear = [0.0] * (len(known.spellings) + 1)
    position = positions[place]
    whole_tokens = {known.normal(before + token) for token, _ in position.alternatives}
    rest = before + "".join(later.token for later in positions[place:])
    seen_sampled = False
    for token, probability in position.alternatives:
        sampled = token == position.token and not seen_sampled
        seen_sampled = seen_sampled or sampled
        text = before + token
        # A server that shows its stop token without a text means that the answer ends here.
        over = known.begun(text, ended=bool(before) and not token)
        possible = known.possible(text) if over is None else [over]
        if not possible or (sampled and known.begun(rest, ended=True) is None and not known.possible(rest)):
            continue
        if len(possible) == 1:
            masses[possible[0]] += probability
            continue
        shorter = [index for index in possible if known.spellings[index] == known.normal(text)]
        if shorter and all(known.spellings[index] in whole_tokens for index in possible):
            masses[shorter[0]] += probability
        elif sampled and token and place + 1 < len(positions):
            inner, inner_unclear = _spread(known, positions, place + 1, text)
            masses = [mass + probability * more for mass, more in zip(masses, inner, strict=True)]
            unclear = [mass + probability * more for mass, more in zip(unclear, inner_unclear, strict=True)]
        else:
            unclear[shorter[0] if shorter else -1] += probability
    return masses, unclear
