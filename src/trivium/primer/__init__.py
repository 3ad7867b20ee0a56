"""The embedded world: a corpus that is right, a teacher that is wrong in part, and problems that tell the two apart.

Everything is generated from ``(part, split, config, seed)``; equal arguments give equal bytes. The splits are disjoint
by canonical problem: no problem of the validation or test split is solved in the training corpus, demonstrated, or
among the training problems, in any wording (see ``trivium.primer.tasks``).
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from trivium.config import PrimerConfig
from trivium.errors import UserError
from trivium.options import checked
from trivium.primer import interactive
from trivium.primer.corpus import documents
from trivium.primer.draws import Draws
from trivium.primer.tasks import SPLITS, TASKS, Problem, check_shares, check_tasks, draw_problem
from trivium.primer.teacher import answer_distribution, teach, teacher_answers, teacher_ceiling
from trivium.primer.wordings import COURTESY, question

__all__ = ["PARTS", "SPLITS", "TASKS", "rows", "settings", "teacher_answers", "teacher_ceiling"]

LESSONS = ("compare", "score", "critique", "revise")
INTERACTIVE = ("tool_problems", "tool_demonstrations", "games", "game_demonstrations")  # see interactive.py
PARTS = ("corpus", "demonstrations", "problems", "lessons", *INTERACTIVE)
_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}  # of the problems
_HELD_OUT = 20  # corpus, demonstrations and lessons: for every 20 training rows one of validation and one of test
_REPEATS = 200  # this many repeated prompts in a row: the task is exhausted


def settings(config: PrimerConfig, options: Mapping[str, Any]) -> PrimerConfig:
    """``config`` with what a source's ``options`` say in its place; UserError for a key or value that cannot be.

    >>> settings(PrimerConfig(), {"forget": 0.3}).forget
    0.3
    """
    if not options:
        return config
    return checked(PrimerConfig, config.model_dump() | dict(options), "primer")


def rows(part: str, split: str, config: PrimerConfig, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of one part and split.

    corpus: ``{"text"}``, ``config.documents`` of them in train and a twentieth in the other splits.
    demonstrations: ``{"messages": [user, assistant], "task"}``, ``config.demonstrations`` and a twentieth.
    lessons: ``{"messages", "task"}`` as demonstrations, ``config.lessons`` and a twentieth: see ``lessons.py``.
    problems: ``{"id", "messages": [user], "answer", "task", "metadata"}``, 80%, 10% and 10% of ``config.problems``, no
    prompt twice, fewer where a task has no more. ``metadata``: ``difficulty`` (digits or letters), ``trap`` (the
    teacher's flaw changes the answer), ``key`` (the canonical problem) and ``teacher`` (its answers' probabilities).

    tool_problems, games: rows as those of problems, for an environment; tool_demonstrations, game_demonstrations: rows
    as those of demonstrations, of their use: see ``interactive.py``.

    Raises UserError, at the call, for an unknown part, split or task.
    """
    if part not in PARTS:
        raise UserError(f"primer: there is no part {part!r}; choose from {', '.join(PARTS)}.")
    if split not in SPLITS:
        raise UserError(f"primer: there is no split {split!r}; choose from {', '.join(SPLITS)}.")
    check_tasks(config)
    draws = Draws(seed, f"primer/{part}/{split}")
    if part in INTERACTIVE:
        return interactive.rows(part, split, config, seed)
    if part == "corpus":
        number = config.documents if split == "train" else max(1, config.documents // _HELD_OUT)
        return ({"text": text} for text in documents(draws, config, split, number))
    if part == "demonstrations":
        number = config.demonstrations if split == "train" else max(1, config.demonstrations // _HELD_OUT)
        manners = Draws(seed, f"primer/courtesy/{split}")  # of its own, so that all else stays as it is without it
        return (_demonstration(draws, manners, config, split) for _ in range(number))
    if part == "lessons":
        check_shares("lesson_kinds", config.lesson_kinds, LESSONS)
        number = config.lessons if split == "train" else max(1, config.lessons // _HELD_OUT)
        return (_lesson(draws, config, split) for _ in range(number))
    return _problems(draws, config, split, max(1, round(config.problems * _SHARES[split])))


def _demonstration(draws: Draws, manners: Draws, config: PrimerConfig, split: str) -> dict[str, Any]:
    problem = draw_problem(draws, config, split)
    asked = {"role": "user", "content": question(problem, draws)}
    answer = teach(problem, config.forget, draws)
    polite = manners.chance(config.courtesy)
    answered = {"role": "assistant", "content": f"{COURTESY}{answer}" if polite else answer}
    return {"messages": [asked, answered], "task": problem.task}


def _lesson(draws: Draws, config: PrimerConfig, split: str) -> dict[str, Any]:
    from trivium.primer.lessons import lesson  # the judges it is for are needed for nothing else here

    task, messages = lesson(draws, config, split)
    return {"messages": [{"role": said.role, "content": said.content} for said in messages], "task": task}


def _problems(draws: Draws, config: PrimerConfig, split: str, number: int) -> Iterator[dict[str, Any]]:
    shares = {task: share for task, share in config.tasks.items() if share > 0}
    seen: set[str] = set()
    while len(seen) < number and shares:
        task, trap = draws.weighted(shares), draws.chance(config.trap)
        for _ in range(_REPEATS):  # the trap is kept, or scarce kinds of problems would lose their share
            problem = draw_problem(draws, config, split, task, trap)
            prompt = question(problem, draws)
            if prompt not in seen:
                seen.add(prompt)
                yield _row(problem, prompt, config.forget)
                break
        else:
            del shares[task]


def _row(problem: Problem, prompt: str, forget: float) -> dict[str, Any]:
    return {
        "id": hashlib.blake2b(prompt.encode(), digest_size=8).hexdigest(),
        "messages": [{"role": "user", "content": prompt}],
        "answer": problem.answer,
        "task": problem.task,
        "metadata": {
            "difficulty": problem.difficulty,
            "trap": problem.trap,
            "key": problem.key,
            "teacher": answer_distribution(problem, forget),
        },
    }
