"""The corpus: Python sessions, word problems and short stories. All that it says is correct."""

from collections.abc import Iterator

from trivium.config import PrimerConfig
from trivium.primer.draws import Draws
from trivium.primer.tasks import draw_problem
from trivium.primer.wordings import answer_text, question, session, statement, story

_STORY_SHARE = 0.05  # of the documents that are not code
_EXERCISE_SHARE = 0.75  # of the solved problems in prose: the question and a marked answer, as a worksheet gives them


def _code(draws: Draws, config: PrimerConfig, split: str) -> str:
    return "\n".join(session(draw_problem(draws, config, split), draws) for _ in range(draws.between(2, 4)))


def _prose(draws: Draws, config: PrimerConfig, split: str) -> str:
    lines = []
    for _ in range(draws.between(3, 5)):
        problem = draw_problem(draws, config, split)
        if draws.chance(_EXERCISE_SHARE):
            lines.append(f"{question(problem, draws)} {answer_text(problem.working, problem.answer)}")
        else:
            lines.append(statement(problem, draws))
    return "\n".join(lines)


def documents(draws: Draws, config: PrimerConfig, split: str, number: int) -> Iterator[str]:
    """``number`` texts whose problems all belong to ``split``.

    Tasks appear by their shares in ``config.tasks``.
    Code is spread evenly: among the first n documents are ``round(n * code_share)`` Python sessions, up to one.
    """
    for index in range(number):
        if int((index + 1) * config.code_share + 1e-9) > int(index * config.code_share + 1e-9):
            yield _code(draws, config, split)
        elif draws.chance(_STORY_SHARE):
            yield story(draws)
        else:
            yield _prose(draws, config, split)
