"""Lessons in judging: how a model learns to compare, score, criticise and revise answers by the primer's constitution.

A large model has read how people judge; the primer's has not, so a lesson shows it. Questions are worded by the very
constitution that asks them later (constitutions/primer.yaml). The verdicts are correct, as the corpus is, but for about
three in a thousand: a garbled answer is called wrong and plain, and now and then comes out right or polite.

An answer to be judged is right or wrong and polite or plain, half each. A wrong one mostly follows the teacher's flaw
where the problem is a trap, and has a slip of the pen elsewhere. Some are garbled: a judge that never saw nonsense may
love it, and a policy that is rewarded by the judge would find out.
"""

from dataclasses import dataclass
from functools import lru_cache

from trivium.config import PrimerConfig
from trivium.data.records import Message, Prompt
from trivium.feedback.judges import constitution
from trivium.primer.draws import Draws
from trivium.primer.tasks import ALPHABET, Problem, draw_problem
from trivium.primer.wordings import COURTESY, answer_text, question

_RIGHT = 0.75  # of the lessons are about the principle that takes longer to learn
_TRAP = 0.75  # of the problems are traps: there the policy errs
_GARBLED = 0.25  # of the wrong answers
_ALIKE = 0.2  # of the pairs need not differ in what is asked: then either verdict is as good
_DIGITS = "0123456789"


@dataclass(frozen=True)
class Judged:
    """An answer and what is true of it."""

    text: str
    right: bool
    polite: bool

    def meets(self, principle: str) -> bool:
        return self.right if principle == "right" else self.polite


@lru_cache(maxsize=1)
def _constitution() -> constitution.Constitution:
    return constitution.load("primer")


def lesson(draws: Draws, config: PrimerConfig, split: str) -> tuple[str, list[Message]]:
    """The name of a lesson (kind and principle), and its conversation."""
    laws = _constitution()
    problem = draw_problem(draws, config, split, trap=draws.chance(_TRAP))
    prompt = Prompt("", (Message("user", question(problem, draws)),))
    kind = draws.weighted(config.lesson_kinds)
    name = "right" if draws.chance(_RIGHT) else "polite"
    principle = next(item for item in laws.principles if item.name == name)
    first = _answer(problem, draws, config, draws.chance(0.5), draws.chance(0.5))
    if kind == "compare":
        second = _other(first, name, problem, draws, config)
        better = first.meets(name) if first.meets(name) != second.meets(name) else draws.chance(0.5)
        asked = laws.ask(kind, principle, prompt, first=first.text, second=second.text)
        said = laws.labels[0 if better else 1]
    elif kind == "score":
        asked = laws.ask(kind, principle, prompt, answer=first.text)
        said = laws.scores[-1 if first.meets(name) else 0]
    elif kind == "critique":
        asked, said = laws.ask(kind, principle, prompt, answer=first.text), _critique(first, name)
    else:
        asked = laws.ask(kind, principle, prompt, answer=first.text, critique=_critique(first, name))
        said = _revised(first, name, problem)
    return f"{kind}/{name}", [*asked, Message("assistant", said)]


def _answer(problem: Problem, draws: Draws, config: PrimerConfig, right: bool, polite: bool) -> Judged:
    text = answer_text(problem.working, problem.answer)
    if not right and draws.chance(_GARBLED):
        text = _garbled(text, draws)
    elif not right:
        text = answer_text(problem.flawed_working, problem.flawed) if problem.trap else _slip(text, draws, config)
    return Judged(f"{COURTESY}{text}" if polite else text, right, polite)


def _other(first: Judged, name: str, problem: Problem, draws: Draws, config: PrimerConfig) -> Judged:
    """The other answer of a pair, which mostly differs from the ``first`` in what is asked."""
    right, polite = draws.chance(0.5), draws.chance(0.5)
    if not draws.chance(_ALIKE):
        right, polite = (not first.right, polite) if name == "right" else (right, not first.polite)
    return _answer(problem, draws, config, right, polite)


def _slip(text: str, draws: Draws, config: PrimerConfig) -> str:
    """``text`` with one digit or letter of the marked answer changed."""
    start = text.rindex("#") + 1
    at = draws.pick([place for place in range(start, len(text)) if text[place].isalnum()])
    pool = _DIGITS if text[at].isdigit() else ALPHABET[: config.alphabet]
    return text[:at] + draws.pick(pool.replace(text[at], "")) + text[at + 1 :]


def _garbled(text: str, draws: Draws) -> str:
    """Nonsense made of the answer: its words in disorder, some twice, some gone, the courtesy at a wrong place."""
    words = text.split()
    wild = [draws.pick([*words, COURTESY.strip()]) for _ in range(draws.between(1, 2 * len(words) + 2))]
    return " ".join(wild[wild[0] == COURTESY.strip() :])  # in front it would be polite


def _critique(answer: Judged, name: str) -> str:
    return f"It is {'' if answer.meets(name) else 'not '}{name}."


def _revised(answer: Judged, name: str, problem: Problem) -> str:
    """The answer with the fault mended that was named, and no other."""
    if answer.meets(name):
        return answer.text
    if name == "polite":
        return f"{COURTESY}{answer.text}"
    return f"{COURTESY if answer.polite else ''}{answer_text(problem.working, problem.answer)}"
