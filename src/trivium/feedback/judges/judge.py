"""The judge: questions made of answers and principles, verdicts made of replies. It knows no backend."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from trivium.data.records import Prompt
from trivium.feedback.judges import prompts
from trivium.feedback.judges.base import Answer, Backend, Comparison, Pair, Question, Reply, Score, Written
from trivium.feedback.judges.calls import Calls
from trivium.feedback.judges.constitution import Constitution, Principle
from trivium.feedback.judges.usage import Budget, BudgetSpent, Usage
from trivium.streams import generator

__all__ = ["BudgetSpent", "Judge"]

Parts = list[tuple[float, Principle]]  # the principles asked about, with weights that add up to 1


class Judge:
    """Compares, scores, criticises and revises answers by the principles of ``constitution``; a context manager.

    ``principles``: "all" asks about every principle and averages by weight, "random" about one drawn by weight from
    (seed, content): one for a pair, and one for the scores of all answers to a prompt. ``both_orders``: a pair is shown
    in both orders and the probabilities averaged. ``temperature`` and ``max_new_tokens`` are those of texts and of
    verdicts that have to be sampled. ``cache``: the file of calls.

    ``name`` is how its rankings are signed; ``identity`` a hash of who is asked, by which principles and how: an audit
    is valid for one identity.
    """

    def __init__(
        self,
        backend: Backend,
        constitution: Constitution,
        *,
        principles: str = "all",
        both_orders: bool = True,
        temperature: float = 1.0,
        max_new_tokens: int = 256,
        seed: int = 0,
        cache: str | Path | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.backend, self.constitution = backend, constitution
        self.principles, self.both_orders, self.seed = principles, both_orders, seed
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        self.calls = Calls(backend, cache, budget)
        self.name = f"judge:{backend.name}"
        self.identity = _hash(backend.identity, constitution.fingerprint, principles, both_orders)

    @property
    def usage(self) -> Usage:
        return self.calls.usage

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.calls.close()
        self.backend.close()

    # -- verdicts ------------------------------------------------------------------------------------------------

    def compare(self, pairs: Sequence[Pair]) -> list[Comparison]:
        """A comparison each. With both orders, the pair shown the other way round has the complementary probability.

        Judged better with 0.8 when shown first and with 0.3 when shown second, an answer has 0.55. Equal answers are
        0.5 without a call. A pair with a call that gave no verdict is missing.
        """
        asked: list[Question] = []
        plans: list[tuple[Parts, int]] = []
        for pair in pairs:
            parts = self._parts(pair.prompt, *sorted((pair.first, pair.second)))
            plans.append((parts, len(asked)))
            if pair.first != pair.second:
                orders = [(pair.first, pair.second), (pair.second, pair.first)][: 1 + self.both_orders]
                asked += [
                    self._verdict("compare", principle, pair.prompt, first=first, second=second)
                    for _, principle in parts
                    for first, second in orders
                ]
        replies = self.calls.ask(asked)
        return [
            self._comparison(parts, replies[start : start + len(parts) * (1 + self.both_orders)])
            if pair.first != pair.second
            else Comparison(0.5)
            for pair, (parts, start) in zip(pairs, plans, strict=True)
        ]

    def score(self, answers: Sequence[Answer]) -> list[Score]:
        """The expected score of each answer, the sum of s P(s) over the constitution's scale, and its place in [-1, 1].

        An answer with a call that gave no verdict is missing.
        """
        plans = [self._parts(answer.prompt) for answer in answers]  # scores of a prompt's answers are compared
        replies = iter(
            self.calls.ask(
                [
                    self._verdict("score", principle, answer.prompt, answer=answer.text)
                    for answer, parts in zip(answers, plans, strict=True)
                    for _, principle in parts
                ]
            )
        )
        return [self._score(parts, [next(replies) for _ in parts]) for parts in plans]

    # -- texts ---------------------------------------------------------------------------------------------------

    def critique(self, answers: Sequence[Answer], round: int = 0) -> list[Written]:
        """What is wrong with each answer under one principle, drawn by weight from (seed, prompt, answer, round)."""
        drawn = [
            self.constitution.draw(
                generator(self.seed, "judge/critique", _hash(prompts.prompt_text(answer.prompt), answer.text), round)
            )
            for answer in answers
        ]
        asked = [
            self._text("critique", principle, answer.prompt, round, answer=answer.text)
            for principle, answer in zip(drawn, answers, strict=True)
        ]
        replies = self.calls.ask(asked)
        return [_written(reply, principle.name) for reply, principle in zip(replies, drawn, strict=True)]

    def revise(self, answers: Sequence[Answer], critiques: Sequence[Written], round: int = 0) -> list[Written]:
        """Each answer rewritten by its critique and the critique's principle; none for a critique that is missing, or
        where the rewriting is cut off."""
        known = {principle.name: principle for principle in self.constitution.principles}
        asked = [
            self._text(
                "revise", known[critique.principle], answer.prompt, round, answer=answer.text, critique=critique.text
            )
            for answer, critique in zip(answers, critiques, strict=True)
            if not critique.missing
        ]
        replies = iter(self.calls.ask(asked))
        return [
            Written("", critique.principle, f"there is no critique: {critique.missing}")
            if critique.missing
            else _whole(next(replies), critique.principle)
            for critique in critiques
        ]

    # -- the parts -----------------------------------------------------------------------------------------------

    def _parts(self, prompt: Prompt, *texts: str) -> Parts:
        constitution = self.constitution
        if self.principles == "random":
            content = _hash(prompts.prompt_text(prompt), *texts)
            return [(1.0, constitution.draw(generator(self.seed, "judge/principle", content)))]
        return list(zip(constitution.weights, constitution.principles, strict=True))

    def _verdict(self, kind: str, principle: Principle, prompt: Prompt, **texts: str) -> Question:
        choices = self.constitution.labels if kind == "compare" else self.constitution.scores
        asked = self.constitution.ask(kind, principle, prompt, **texts)
        return Question(asked, choices, self.max_new_tokens, self.temperature)

    def _text(self, kind: str, principle: Principle, prompt: Prompt, round: int, **texts: str) -> Question:
        asked = self.constitution.ask(kind, principle, prompt, **texts)
        return Question(asked, (), self.max_new_tokens, self.temperature, f"{kind}/{self.seed}/{round}")

    def _comparison(self, parts: Parts, replies: Sequence[Reply]) -> Comparison:
        step = 1 + self.both_orders
        # The second answer is shown first in the backward order, so the first answer has the second label.
        forward = _mean(parts, [_probability(reply, 0) for reply in replies[::step]])
        backward = _mean(parts, [_probability(reply, 1) for reply in replies[1::step]]) if self.both_orders else None
        missing = next((reply.missing for reply in replies if reply.missing), "")
        if missing or forward is None:
            return Comparison(None, forward, backward, missing=missing)
        of_principle = {
            principle.name: math.fsum(reply.probabilities[place] for place, reply in enumerate(shown)) / step
            for (_, principle), shown in zip(parts, _chunks(replies, step), strict=True)
        }
        return Comparison(_weighted(parts, of_principle), forward, backward, of_principle)

    def _score(self, parts: Parts, replies: Sequence[Reply]) -> Score:
        missing = next((reply.missing for reply in replies if reply.missing), "")
        if missing:
            return Score(None, missing=missing)
        of_principle = {
            principle.name: math.fsum(score * p for score, p in enumerate(reply.probabilities, 1))
            for (_, principle), reply in zip(parts, replies, strict=True)
        }
        value = _weighted(parts, of_principle)
        return Score(value, 2 * (value - 1) / (self.constitution.scale - 1) - 1, of_principle)


def _probability(reply: Reply, place: int) -> float | None:
    return None if reply.missing else reply.probabilities[place]


def _mean(parts: Parts, values: Sequence[float | None]) -> float | None:
    known = [weight * value for (weight, _), value in zip(parts, values, strict=True) if value is not None]
    return math.fsum(known) if len(known) == len(parts) else None


def _weighted(parts: Parts, values: Mapping[str, float]) -> float:
    return math.fsum(weight * values[principle.name] for weight, principle in parts)


def _chunks(replies: Sequence[Reply], size: int) -> list[Sequence[Reply]]:
    return [replies[start : start + size] for start in range(0, len(replies), size)]


def _written(reply: Reply, principle: str) -> Written:
    text = reply.text.strip()
    return Written(text, principle, reply.missing or ("" if text else "the text is empty"))


def _whole(reply: Reply, principle: str) -> Written:
    """A revision is an answer that somebody learns from: half of one is none. A critique may end early."""
    cut = "the revision is cut off at max_new_tokens"
    return _written(replace(reply, missing=reply.missing or cut) if reply.cut else reply, principle)


def _hash(*parts: object) -> str:
    text = json.dumps(parts, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
