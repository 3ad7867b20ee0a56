"""The teacher: goes by its flaw with probability ``forget``, which makes it wrong in a trap and nowhere else."""

from collections.abc import Iterable, Mapping
from typing import Any

from trivium.primer.draws import Draws
from trivium.primer.tasks import Problem
from trivium.primer.wordings import answer_text


def answer_distribution(problem: Problem, forget: float) -> dict[str, float]:
    """The teacher's answers with their probabilities; they sum to 1.

    >>> from trivium.primer.tasks import add
    >>> answer_distribution(add(27, 58), 0.75), answer_distribution(add(23, 45), 0.75)
    ({'75': 0.75, '85': 0.25}, {'68': 1.0})
    """
    if not problem.trap:
        return {problem.answer: 1.0}
    answers = {problem.flawed: forget, problem.answer: round(1.0 - forget, 12)}
    return {answer: probability for answer, probability in answers.items() if probability > 0}


def teach(problem: Problem, forget: float, draws: Draws) -> str:
    """One answer of the teacher, as it stands in the chat: '7+8=15 2+5=7 #### 75'.

    The flaw shows in the working even where it does no harm: a teacher that compares last digits alone writes '5>1' for
    35 and 21 too. Were it careful just there, its working would teach the right way.
    """
    if draws.chance(forget):
        return answer_text(problem.flawed_working, problem.flawed)
    return answer_text(problem.working, problem.answer)


def teacher_answers(problem: Any) -> dict[str, float]:
    """The teacher's distribution of answers to a row of ``problems``, or to a ``Prompt`` made of one."""
    metadata = problem["metadata"] if isinstance(problem, Mapping) else problem.metadata
    return dict(metadata["teacher"])


def teacher_ceiling(problems: Iterable[Any]) -> dict[str, Any]:
    """What imitation can reach on ``problems`` (rows or Prompts), computed from the distributions and not sampled.

    Returns ``{"n", "greedy", "sampled", "by_task": {task: {"n", "greedy", "sampled"}}}``: ``greedy`` is the accuracy of
    the teacher's likeliest answers, ``sampled`` its expected accuracy. All shares are 0.0 if there are no problems.
    """
    tallies: dict[str, list[float]] = {}
    for problem in problems:
        row = isinstance(problem, Mapping)
        task, right = (problem["task"], problem["answer"]) if row else (problem.task, problem.answer)
        answers = teacher_answers(problem)
        tally = tallies.setdefault(task, [0, 0.0, 0.0])
        tally[0] += 1
        tally[1] += max(answers, key=lambda answer: answers[answer]) == right
        tally[2] += answers.get(right, 0.0)

    def shares(n: float, greedy: float, sampled: float) -> dict[str, Any]:
        return {"n": int(n), "greedy": greedy / max(n, 1), "sampled": sampled / max(n, 1)}

    total = [sum(column) for column in zip(*tallies.values(), strict=True)] or [0, 0.0, 0.0]
    return {**shares(*total), "by_task": {task: shares(*tallies[task]) for task in sorted(tallies)}}
