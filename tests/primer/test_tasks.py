"""Each task's right and flawed answers, by hand and in general."""

import pytest

from trivium.config import PrimerConfig
from trivium.errors import UserError
from trivium.primer import tasks
from trivium.primer.draws import Draws


@pytest.mark.parametrize(
    ("problem", "answer", "flawed"),
    [
        (tasks.add(27, 58), "85", "75"),
        (tasks.add(23, 45), "68", "68"),
        (tasks.add(27, 95), "122", "112"),  # the leading column is written in full
        (tasks.add(95, 51), "146", "146"),
        (tasks.add(999, 1), "1000", "990"),
        (tasks.add(7, 8), "15", "15"),
        (tasks.subtract(52, 27), "25", "35"),
        (tasks.subtract(58, 27), "31", "31"),
        (tasks.sort("cdb"), "b c d", "c d b"),
        (tasks.sort("cbd"), "b c d", "b c d"),
        (tasks.count("a", "baaa"), "3", "2"),
        (tasks.count("a", "baa"), "2", "2"),
        (tasks.count("a", "bcd"), "0", "0"),
        (tasks.compare(47, 62, "larger"), "62", "47"),
        (tasks.compare(47, 62, "smaller"), "47", "62"),
        (tasks.compare(41, 62, "larger"), "62", "62"),
        (tasks.reverse("abcd"), "d c b a", "d b c a"),
        (tasks.reverse("abc"), "c b a", "c b a"),
        (tasks.reverse("abbc"), "c b b a", "c b b a"),
    ],
)
def test_answers_by_hand(problem: tasks.Problem, answer: str, flawed: str) -> None:
    assert (problem.answer, problem.flawed, problem.trap) == (answer, flawed, answer != flawed)


@pytest.mark.parametrize("a", [10, 19, 27, 95, 99, 100, 958])
@pytest.mark.parametrize("b", [10, 11, 58, 95, 99, 107])
def test_working_is_true_line_by_line_unless_flawed(a: int, b: int) -> None:
    high, low = max(a, b), min(a, b)
    assert tasks.add_columns(a, b)[1] == a + b
    assert tasks.subtract_columns(high, low)[1] == high - low
    for working, result in (tasks.add_columns(a, b), tasks.subtract_columns(high, low)):
        digits, columns = "", working.split()
        for index, column in enumerate(columns, start=1):
            terms, value = column.split("=")
            first, *rest = [int(term) for term in terms.replace("-", "+-").split("+")]
            assert first + sum(rest) == int(value)
            digits = (value if index == len(columns) else value[-1]) + digits
        assert int(digits) == result
    for working, _ in (tasks.add_columns(a, b, carry=False), tasks.subtract_columns(high, low, borrow=False)):
        assert all(column.count("+") + column.count("-") == 1 for column in working.split())


def test_problems_that_share_their_knowledge_share_their_key() -> None:
    assert tasks.add(27, 58).key == tasks.add(58, 27).key
    assert tasks.compare(47, 62, "larger").key == tasks.compare(62, 47, "smaller").key
    assert tasks.sort("cab").key == tasks.sort("bca").key
    assert tasks.reverse("abc").key == tasks.reverse("cba").key
    assert tasks.subtract(52, 27).key != tasks.subtract(79, 27).key
    assert tasks.count("a", "aab").key != tasks.count("b", "aab").key


def test_splits_by_hash_are_about_80_10_10_and_pinned() -> None:
    splits = [tasks.split_of(f"add {a} {b}") for a in range(10, 100) for b in range(a, 100)]
    shares = [splits.count(split) / len(splits) for split in tasks.SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert [tasks.split_of(f"add 10 {b}") for b in range(10, 18)] == PINNED_SPLITS


PINNED_SPLITS = ["train", "train", "train", "train", "test", "validation", "train", "train"]


@pytest.mark.parametrize("task", list(tasks.TASKS))
@pytest.mark.parametrize("trap", [True, False])
def test_draws_respect_task_trap_split_and_difficulty(task: str, trap: bool) -> None:
    config = PrimerConfig(digits=3, letters=6, alphabet=10)
    draws = Draws(0, "test")
    for _ in range(200):
        problem = tasks.draw_problem(draws, config, "validation", task, trap)
        assert (problem.task, problem.trap, tasks.split_of(problem.key)) == (task, trap, "validation")
        for value in problem.values:
            if isinstance(value, int):
                assert 0 <= value < 1000
            elif task != "compare":
                assert 1 <= len(value) <= 6 and set(value) <= set("abcdefghij")


def test_settings_without_traps_still_give_problems() -> None:
    config = PrimerConfig(digits=1, letters=2, trap=1.0, tasks=dict.fromkeys(("add", "count", "reverse"), 1.0))
    draws = Draws(0, "test")
    assert not any(tasks.draw_problem(draws, config, "train").trap for _ in range(50))


@pytest.mark.parametrize("shares", [{"ad": 1.0}, {"add": -1.0}, {"add": 0.0}, {}])
def test_bad_shares_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(UserError, match="primer"):
        tasks.check_tasks(PrimerConfig(tasks=shares))


def test_draws_do_not_depend_on_the_block_boundaries_or_other_streams() -> None:
    first, second = Draws(1, "a"), Draws(1, "a")
    Draws(1, "b").uniform()
    assert [first.uniform() for _ in range(5000)] == [second.uniform() for _ in range(5000)]
    assert sorted(first.distinct("abcdef", 6)) == list("abcdef")
    assert {first.between(2, 4) for _ in range(200)} == {2, 3, 4}
