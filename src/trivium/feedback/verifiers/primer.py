"""The verifier of the primer's problems: the only marked answer is exactly the right one."""

from trivium.data.records import Prompt
from trivium.feedback.verdict import Verdict
from trivium.feedback.verifiers.base import (
    Verifier,
    after_marker,
    decided,
    infra_error,
    parse_number,
    reference_number,
    unparseable,
)

MARKER = "####"  # the form in which the primer's teacher answers
NUMBER_TASKS = frozenset({"add", "subtract", "count", "compare"})
LETTER_TASKS = frozenset({"sort", "reverse"})
_MAX_LETTERS = 100


class Primer(Verifier):
    """Numbers for add, subtract, count and compare; spaced letters for sort and reverse (by prompt.task)."""

    def judge(self, prompt: Prompt, response: str) -> Verdict:
        numeric = prompt.task in NUMBER_TASKS
        if not numeric and prompt.task not in LETTER_TASKS:
            return infra_error(f"the primer has no task {prompt.task!r}")
        answer, why = after_marker(response, MARKER)
        if answer is None:
            return unparseable(why)
        if numeric:
            reference = reference_number(prompt.answer, MARKER)
            if reference is None:
                return infra_error(f"the reference {str(prompt.answer)[:80]!r} is not a number")
            number = parse_number(answer)
            return (
                unparseable("no number after the marker", answer)
                if number is None
                else decided(number == reference, answer)
            )
        letters = answer.split()
        if not letters or len(letters) > _MAX_LETTERS or any(len(x) != 1 or not "a" <= x <= "z" for x in letters):
            return unparseable("not letters separated by spaces", answer)
        return decided(letters == str(prompt.answer).split(), answer)
