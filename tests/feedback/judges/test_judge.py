"""The judge: averages over orders and principles by hand, missing calls, draws, critiques, revisions, budget."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.config import JudgeConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.judges import constitution
from trivium.feedback.judges.base import Answer, Pair, Question, Reply, Written
from trivium.feedback.judges.build import build_judge
from trivium.feedback.judges.constitution import Constitution, Principle
from trivium.feedback.judges.fake import FakeBackend
from trivium.feedback.judges.judge import BudgetSpent, Judge
from trivium.feedback.judges.prompts import materials
from trivium.feedback.judges.usage import Budget

PROMPT = Prompt("p", (Message("user", "What is 2 + 2?"),))
ONE = Constitution("one", (Principle("right", "Is it right?"),), scale=10)
TWO = Constitution("two", (Principle("right", "Is it right?", 3.0), Principle("brief", "Is it brief?", 1.0)), scale=5)


def shown(question: Question) -> list[str]:
    """The texts between the marks: the prompt first."""
    return materials(question.messages[-1].content, constitution.load("general").delimiters)[1:]


def judge(answer: Callable[[Question], Reply], law: Constitution = ONE, **options: Any) -> Judge:
    return Judge(FakeBackend(answer), law, **options)


def choose(first: float) -> Reply:
    return Reply((first, 1 - first), prompt_tokens=10, completion_tokens=1)


def asked(made: Judge) -> list[Question]:
    assert isinstance(made.backend, FakeBackend)
    return made.backend.asked


def test_08_and_03_after_the_swap_give_055() -> None:
    # "good" is better with 0.8 where it is shown first, with 0.3 where it is shown second (the label B)
    with judge(lambda question: choose(0.8) if shown(question)[0] == "good" else choose(0.7)) as made:
        (found,) = made.compare([Pair(PROMPT, "good", "bad")])
    assert found.probability == pytest.approx(0.55)
    assert (found.forward, found.backward) == (pytest.approx(0.8), pytest.approx(0.3))
    assert found.principles == {"right": pytest.approx(0.55)}


def test_one_order_is_asked_only_where_both_orders_is_off() -> None:
    with judge(lambda question: choose(0.8), both_orders=False) as made:
        (found,) = made.compare([Pair(PROMPT, "good", "bad")])
    assert (found.probability, found.forward, found.backward) == (0.8, 0.8, None)
    assert len(asked(made)) == 1


def test_principles_are_averaged_by_weight() -> None:
    said = {("right", True): 0.9, ("right", False): 0.3, ("brief", True): 0.6, ("brief", False): 0.8}

    def answer(question: Question) -> Reply:
        name = "right" if "Is it right?" in question.messages[-1].content else "brief"
        return choose(said[name, shown(question)[0] == "good"])

    with judge(answer, TWO) as made:
        (found,) = made.compare([Pair(PROMPT, "good", "bad")])
    # right: (0.9 + 0.7) / 2 = 0.8, brief: (0.6 + 0.2) / 2 = 0.4; weights 3/4 and 1/4
    assert found.principles == {"right": pytest.approx(0.8), "brief": pytest.approx(0.4)}
    assert found.probability == pytest.approx(0.7)
    assert found.forward == pytest.approx(0.75 * 0.9 + 0.25 * 0.6)
    assert found.backward == pytest.approx(0.75 * 0.7 + 0.25 * 0.2)


def test_equal_answers_are_even_without_a_call() -> None:
    with judge(lambda question: choose(0.9)) as made:
        found = made.compare([Pair(PROMPT, "same", "same"), Pair(PROMPT, "a", "b")])
    assert found[0].probability == 0.5
    assert found[1].probability == pytest.approx(0.5)  # it names the first place whatever stands there
    assert (found[1].forward, found[1].backward) == (0.9, pytest.approx(0.1))
    assert len(asked(made)) == 2


@pytest.mark.parametrize("place", ["good", "bad"])
def test_a_missing_call_makes_the_comparison_missing_and_never_a_vote(place: str) -> None:
    def answer(question: Question) -> Reply:
        return Reply(missing="a refusal") if shown(question)[0] == place else choose(0.9)

    with judge(answer) as made:
        (found,) = made.compare([Pair(PROMPT, "good", "bad")])
    assert (found.probability, found.missing) == (None, "a refusal")
    assert (found.forward, found.backward) == ((None, pytest.approx(0.1)) if place == "good" else (0.9, None))
    assert made.usage.missing == 1


def test_the_expected_score_and_its_place_between_minus_one_and_one() -> None:
    def answer(question: Question) -> Reply:
        return (
            Reply((0.0, 0.0, 0.25, 0.0, 0.75)) if "right" in question.messages[-1].content else Reply((1.0, 0, 0, 0, 0))
        )

    with judge(answer, TWO) as made:
        (found,) = made.score([Answer(PROMPT, "4")])
    assert asked(made)[0].choices == ("1", "2", "3", "4", "5")
    # right: 3 / 4 + 5 * 3 / 4 = 4.5, brief: 1; 0.75 * 4.5 + 0.25 = 3.625; 2 * 2.625 / 4 - 1 = 0.3125
    assert found.principles == {"right": pytest.approx(4.5), "brief": pytest.approx(1.0)}
    assert (found.value, found.rescaled) == (pytest.approx(3.625), pytest.approx(0.3125))


def test_a_score_with_a_missing_call_is_missing() -> None:
    def answer(question: Question) -> Reply:
        return Reply(missing="nonsense") if "brief" in question.messages[-1].content else Reply((0, 0, 0, 0, 1.0))

    with judge(answer, TWO) as made:
        (found,) = made.score([Answer(PROMPT, "4")])
    assert (found.value, found.rescaled, found.missing) == (None, None, "nonsense")


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), min_size=1, max_size=6), st.booleans())
def test_a_pair_the_other_way_round_has_the_complement(texts: list[tuple[str, str]], random: bool) -> None:
    with Judge(FakeBackend(), TWO, principles="random" if random else "all", seed=3) as made:
        there = made.compare([Pair(PROMPT, first, second) for first, second in texts])
        calls = made.usage.calls
        back = made.compare([Pair(PROMPT, second, first) for first, second in texts])
    assert made.usage.calls == calls  # the same questions, so the same calls
    for one, other in zip(there, back, strict=True):
        assert one.probability is not None
        assert other.probability is not None
        assert one.probability + other.probability == pytest.approx(1)
        assert one.forward == (None if other.backward is None else pytest.approx(1 - other.backward))


def test_a_random_principle_is_drawn_by_weight_and_content() -> None:
    pairs = [Pair(PROMPT, f"answer {number}", f"other {number}") for number in range(400)]
    with Judge(FakeBackend(), TWO, principles="random", seed=1) as made:
        drawn = [next(iter(found.principles)) for found in made.compare(pairs)]
        again = [next(iter(found.principles)) for found in made.compare(pairs[::-1])][::-1]
    assert drawn == again
    assert made.usage.calls == 800
    assert 0.68 < drawn.count("right") / 400 < 0.82  # 3 of 4, five deviations of 0.022 around it would be wider
    with Judge(FakeBackend(), TWO, principles="random", seed=2) as made:
        assert [next(iter(found.principles)) for found in made.compare(pairs)] != drawn


def test_answers_to_one_prompt_are_scored_by_one_random_principle() -> None:
    """Scores are compared within a prompt (the best against the worst, a group's baseline): by two principles they
    would tell the principles apart, not the answers."""
    prompts = [Prompt(str(number), (Message("user", f"prompt {number}"),)) for number in range(40)]
    with Judge(FakeBackend(), TWO, principles="random", seed=1) as made:
        drawn = [
            {next(iter(found.principles)) for found in made.score([Answer(prompt, "x" * k) for k in range(1, 9)])}
            for prompt in prompts
        ]
    assert all(len(names) == 1 for names in drawn)
    assert {name for names in drawn for name in names} == {"right", "brief"}


def test_a_revision_goes_by_the_critique_and_its_principle() -> None:
    def answer(question: Question) -> Reply:
        texts = shown(question)
        return Reply(text=f"revised {texts[0]} as {texts[1]}" if len(texts) == 2 else f"wrong: {texts[0]}")

    answers = [Answer(PROMPT, f"answer {number}") for number in range(30)]
    with judge(answer, TWO, seed=5, temperature=0.7, max_new_tokens=33) as made:
        critiques = made.critique(answers)
        revisions = made.revise(answers, critiques)
        later = made.critique(answers, round=1)
    assert [written.text for written in critiques] == [f"wrong: answer {number}" for number in range(30)]
    assert revisions[7].text == "revised answer 7 as wrong: answer 7"
    assert [written.principle for written in revisions] == [written.principle for written in critiques]
    assert {written.principle for written in critiques} == {"right", "brief"}
    assert [written.principle for written in later] != [written.principle for written in critiques]
    questions = {principle.name: principle.question for principle in TWO.principles}
    for question, written in zip(asked(made), [*critiques, *revisions, *later], strict=True):
        assert questions[written.principle] in question.messages[-1].content
        assert (question.choices, question.temperature, question.max_new_tokens) == ((), 0.7, 33)


def test_no_revision_without_a_critique_and_no_empty_text() -> None:
    def answer(question: Question) -> Reply:
        texts = shown(question)
        if len(texts) == 1:
            return Reply(missing="a refusal") if texts[0] == "x" else Reply(text="too short")
        return Reply(text=" \n")

    answers = [Answer(PROMPT, "x"), Answer(PROMPT, "y")]
    with judge(answer) as made:
        critiques = made.critique(answers)
        revisions = made.revise(answers, critiques)
    assert critiques[0] == Written("", "right", "a refusal")
    assert revisions[0].missing == "there is no critique: a refusal"
    assert (revisions[1].text, revisions[1].missing) == ("", "the text is empty")
    assert made.usage.calls == 3


def test_seed_and_round_make_other_texts_of_equal_questions() -> None:
    streams = []
    for seed, turn in ((0, 0), (0, 1), (1, 0)):
        with judge(lambda question: Reply(text="w"), seed=seed) as made:
            made.critique([Answer(PROMPT, "x")], round=turn)
            streams.append(asked(made)[0].stream)
    assert len(set(streams)) == 3


def test_identity_says_who_is_asked_by_which_principles_and_how() -> None:
    def identity(law: Constitution = ONE, who: str = "x", **options: Any) -> str:
        with Judge(FakeBackend(identity=who), law, **options) as made:
            return made.identity

    found = [
        identity(),
        identity(who="y"),
        identity(TWO),
        identity(Constitution("one", (Principle("right", "Is it right?", 2.0),), scale=9)),
        identity(principles="random"),
        identity(both_orders=False),
    ]
    assert len(set(found)) == len(found)
    assert identity() == identity(seed=9)


def test_a_budget_stops_before_the_call_that_does_not_fit_and_the_next_run_goes_on(tmp_path: Path) -> None:
    pairs = [Pair(PROMPT, f"{number}", "other") for number in range(20)]  # 40 calls of 11 tokens

    def run(budget: int | None) -> Judge:
        return judge(lambda question: choose(0.8), cache=tmp_path / "judge.db", budget=Budget(tokens=budget))

    with run(200) as made:
        with pytest.raises(BudgetSpent, match=r"198 of budget_tokens 200\) with 22 calls still to make: its 18 calls"):
            made.compare(pairs)
        assert made.usage.tokens == 198  # 18 calls; a nineteenth would make it 209
    with run(None) as made:
        assert len(made.compare(pairs)) == 20
        assert (made.usage.calls, made.usage.cached) == (22, 18)


def test_a_budget_of_dollars_goes_by_the_prices() -> None:
    budget = Budget(price_input=100.0, price_output=1000.0, cost=0.0101)  # 10 and 1 tokens: 0.002 a call
    with judge(lambda question: choose(0.8), budget=budget) as made:
        with pytest.raises(BudgetSpent, match=r"\$0\.0100 of budget_cost \$0\.0101"):
            made.compare([Pair(PROMPT, f"{number}", "other") for number in range(20)])
        assert (made.usage.calls, made.usage.cost) == (5, pytest.approx(0.01))


def test_what_is_cached_costs_nothing(tmp_path: Path) -> None:
    for spent in (22, 0):
        with judge(lambda question: choose(0.8), cache=tmp_path / "judge.db", budget=Budget(tokens=22)) as made:
            made.compare([Pair(PROMPT, "a", "b")])
            assert made.usage.tokens == spent


def test_a_judge_is_built_from_its_configuration(tmp_path: Path) -> None:
    config = JudgeConfig(backend="fake", model="longer", principles="random", both_orders=False, budget_tokens=7)
    with build_judge(config, cache=tmp_path / "a" / "judge.db", seed=4) as made:
        (found,) = made.compare([Pair(PROMPT, "short", "a longer answer")])
        assert found.probability is not None
        assert found.probability < 0.5
        assert (made.name, made.seed, made.constitution.name) == ("judge:longer", 4, "general")
        assert (made.principles, made.both_orders) == ("random", False)
        with pytest.raises(BudgetSpent):
            made.score([Answer(PROMPT, "x")])
    assert (tmp_path / "a" / "judge.db").is_file()
    with build_judge(config.model_copy(update={"temperature": 0.3, "max_new_tokens": 9})) as made:
        made.critique([Answer(PROMPT, "x")])
        assert (asked(made)[0].temperature, asked(made)[0].max_new_tokens) == (0.3, 9)
    own = config.model_copy(update={"cache": str(tmp_path / "own.db")})
    with build_judge(own, cache=tmp_path / "b.db"):
        assert (tmp_path / "own.db").is_file()
        assert not (tmp_path / "b.db").exists()


def test_the_fake_backend_works_with_every_constitution_and_way_to_ask() -> None:
    for name in constitution.names():
        with build_judge(JudgeConfig(backend="fake", model="longer", constitution=name)) as made:
            short, long = Answer(PROMPT, "4"), Answer(PROMPT, "4, as 2 and 2 make 4." * 5)
            (compared,) = made.compare([Pair(PROMPT, long.text, short.text)])
            scores = made.score([short, long])
            (revised,) = made.revise([short], made.critique([short]))
            assert compared.probability is not None
            assert compared.probability > 0.9
            assert scores[0].value is not None
            assert scores[1].value is not None
            assert scores[0].value < scores[1].value
            assert len(revised.text) > 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (JudgeConfig(model="policy"), "judge.model is policy, but no model learns here"),
        (JudgeConfig(model="no/such/place"), "does not exist"),
        (JudgeConfig(backend="fake", model="x", constitution="generel"), r"did you mean 'general'\?"),
    ],
)
def test_what_cannot_be_built_says_what_to_do(config: JudgeConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_judge(config)
