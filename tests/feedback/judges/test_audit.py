"""What an audit measures: by hand, against judges with planted faults, and how often its intervals hold the truth."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.config import JudgeConfig, VerifierConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.feedback.judges import constitution
from trivium.feedback.judges.audit import audit, contradictions
from trivium.feedback.judges.base import Comparison, Question, Reply, Score
from trivium.feedback.judges.fake import FakeBackend
from trivium.feedback.judges.judge import Judge
from trivium.feedback.judges.measures import comparison_measures, people_measures, score_measures
from trivium.feedback.judges.pairs import Item, draw_pairs, with_gold
from trivium.feedback.rankings.record import Ranking, Response
from trivium.streams import generator

CONFIG = JudgeConfig(backend="fake", model="stub")


def item(number: int, gold: int | None = None, texts: tuple[str, str] = ("one", "other"), **votes: int) -> Item:
    prompt = Prompt(f"p{number}", (Message("user", f"question {number}"),))
    return Item(prompt, (Response(texts[0]), Response(texts[1])), "overall", votes, gold)


def both(forward: float, backward: float) -> Comparison:
    return Comparison((forward + backward) / 2, forward, backward, {"right": (forward + backward) / 2})


def holds(interval: dict[str, Any] | None, truth: float) -> bool:
    assert interval is not None
    return bool(interval["low"] - 1e-9 <= truth <= interval["high"] + 1e-9)


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_agreement_and_kappa_by_hand() -> None:
    """Verdicts + + - tie against + - - +. Named both ways: 4 of 8 the same; the judge says + - tie in the shares 3/8,
    3/8, 2/8 and gold in 1/2, 1/2, 0, so chance is 3/8 and kappa (1/2 - 3/8) / (5/8)."""
    items = [item(n, gold) for n, gold in enumerate((1, -1, -1, 1))]
    said = [both(0.8, 0.8), both(0.9, 0.7), both(0.1, 0.3), both(0.52, 0.52)]
    measured = comparison_measures(items, said)
    assert measured["agreement"]["estimate"] == (1 + 0 + 1 + 0.5) / 4
    assert measured["kappa"]["estimate"] == pytest.approx(0.2)
    assert measured["principles"]["right"]["estimate"] == measured["agreement"]["estimate"]


def test_ties_of_the_reference_count_in_kappa_alone() -> None:
    """Two ties of gold, one of which the judge shares: agreement is over the two others. Named both ways 6 of 8 are the
    same; both say tie in a share of 1/4 and 1/2, so chance is 2 * 3/8 * 1/4 + 1/4 * 1/2 = 5/16."""
    items = [item(n, gold) for n, gold in enumerate((1, -1, 0, 0))]
    measured = comparison_measures(items, [both(0.9, 0.9), both(0.2, 0.2), both(0.5, 0.5), both(0.9, 0.9)])
    assert measured["agreement"]["estimate"] == 1.0
    assert measured["kappa"]["estimate"] == pytest.approx((3 / 4 - 5 / 16) / (1 - 5 / 16))


def test_position_consistency_and_contradictions_by_hand() -> None:
    """0.9 when shown first and 0.3 when shown second: the first place has 0.3 too much, and wins in both orders."""
    items = [item(n, 1) for n in range(3)]
    said = [both(0.9, 0.3), both(0.8, 0.6), both(0.3, 0.5)]
    measured = comparison_measures(items, said)
    assert measured["position"]["bias"]["estimate"] == pytest.approx((0.3 + 0.1 - 0.1) / 3)
    assert measured["position"]["first"]["estimate"] == pytest.approx((1 + 0.5 + (0 + 0.5) / 2) / 3)
    assert measured["consistency"]["estimate"] == pytest.approx((0 + 1 + 0.5) / 3)
    found = contradictions(items, said)
    assert [(c.item.prompt.id, round(c.size, 9)) for c in found] == [("p0", 0.6)]


def test_one_order_has_no_consistency_but_a_position() -> None:
    measured = comparison_measures([item(0, 1), item(1, -1)], [Comparison(0.9, 0.9), Comparison(0.5, 0.5)])
    assert measured["consistency"] is None
    assert measured["position"]["bias"]["estimate"] == pytest.approx(0.2)
    assert measured["position"]["first"]["estimate"] == 0.75


def test_who_ranked_more_pairs_weighs_more() -> None:
    """Kappa 1 with x over three pairs and -1 with y over one: (3 - 1) / 4."""
    items = [item(0, x=1), item(1, x=-1), item(2, x=1), item(3, y=-1)]
    measured = comparison_measures(items, [both(0.9, 0.9), both(0.1, 0.1), both(0.9, 0.9), both(0.9, 0.9)])
    assert measured["kappa"]["estimate"] == pytest.approx(0.5)
    assert measured["agreement"]["estimate"] == 0.75


def test_length_bias_by_hand() -> None:
    """The judge prefers the longer in 2 of 3 (one tie: 2.5), gold in 1; the pair of equal lengths counts nowhere."""
    items = [
        item(0, 1, ("long", "s")),
        item(1, -1, ("long", "s")),
        item(2, 1, ("s", "long")),
        item(3, 1, ("same", "size")),
    ]
    measured = comparison_measures(items, [both(0.9, 0.9), both(0.9, 0.9), both(0.5, 0.5), both(0.9, 0.9)])["length"]
    assert measured["judge"]["estimate"] == pytest.approx(2.5 / 3)
    assert measured["reference"]["estimate"] == pytest.approx(1 / 3)
    assert measured["bias"]["estimate"] == pytest.approx(0.5)


def test_calibration_by_hand() -> None:
    """0.8 right, 0.8 wrong: sure 0.8 and right half of the time; gold's tie says nothing about either."""
    items = [item(0, 1), item(1, -1), item(2, 0)]
    measured = comparison_measures(items, [both(0.8, 0.8), both(0.8, 0.8), both(0.9, 0.9)])["calibration"]
    assert measured["ece"] == pytest.approx(0.3)
    assert measured["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2)
    assert [(entry["n"], entry["observed"]) for entry in measured["bins"]] == [(2, 0.5)]


def test_missing_comparisons_are_counted_and_left_out() -> None:
    items = [item(n, 1) for n in range(4)]
    said = [both(0.9, 0.9), Comparison(None, forward=0.1, missing="nonsense"), both(0.9, 0.9), both(0.9, 0.9)]
    measured = comparison_measures(items, said)
    assert (measured["n"], measured["missing"]) == (3, 1)
    assert measured["agreement"]["estimate"] == 1.0 and measured["position"]["bias"]["estimate"] == 0.0
    assert contradictions([item(0, 1)], [Comparison(None, 0.9, 0.1, missing="nonsense")]) == []
    scores = [(Score(5.0), Score(3.0)), (Score(None, missing="refused"), Score(9.0)), (Score(2.0), Score(2.0))]
    by_score = score_measures(items[:3], scores)
    assert (by_score["n"], by_score["missing"], by_score["agreement"]["estimate"]) == (2, 1, 0.75)
    assert by_score["position"] is by_score["calibration"] is by_score["consistency"] is None


def test_one_prompt_is_no_sample() -> None:
    one = item(0, 1)
    measured = comparison_measures([one, one], [both(0.9, 0.9), both(0.8, 0.8)])
    assert measured["kappa"] == {"estimate": 1.0, "low": None, "high": None}


def test_people_by_hand_and_on_the_same_pairs() -> None:
    """a and b say + + - tie and + - - +, the kappa of 0.2 above; c alone ranked a fifth pair, which counts nowhere."""
    votes = zip((1, 1, -1, 0), (1, -1, -1, 1), strict=True)
    items = [item(4, c=-1), *(item(n, a=a, b=b) for n, (a, b) in enumerate(votes))]
    measured = people_measures(items, [1, 1, 1, -1, 0])
    assert (measured["n"], measured["annotators"]) == (4, 2)
    assert measured["kappa"]["estimate"] == pytest.approx(0.2)
    # a as the reference of b: right, wrong, right; b as that of a: right, wrong, right, tie
    assert measured["agreement"]["estimate"] == pytest.approx((2 + 2.5) / 7)
    # the judge says what a says: kappa 1 with a (a tie shared), 0.2 with b, four pairs each
    assert measured["judge"]["kappa"]["estimate"] == pytest.approx(0.6)
    nobody = people_measures([item(0, a=1)], [1])
    assert nobody["n"] == 0 and nobody["kappa"] is None and nobody["judge"]["agreement"] is None


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from((-1, 0, 1))), min_size=2, max_size=8))
def test_which_answer_is_called_first_does_not_matter(rows: list[tuple[float, float, int]]) -> None:
    """Renaming the two answers of a pair swaps and mirrors its probabilities, and changes no number."""
    items = [item(n, gold, ("a", "bb")) for n, (_, _, gold) in enumerate(rows)]
    renamed = [item(n, -gold, ("bb", "a")) for n, (_, _, gold) in enumerate(rows)]
    one = comparison_measures(items, [both(f, b) for f, b, _ in rows])
    other = comparison_measures(renamed, [both(1 - b, 1 - f) for f, b, _ in rows])
    for name in ("agreement", "kappa", "consistency"):
        assert _rounded(one[name]) == _rounded(other[name])
    for name in ("position", "length"):
        assert {key: _rounded(value) for key, value in one[name].items()} == {
            key: _rounded(value) for key, value in other[name].items()
        }


def _rounded(interval: dict[str, float] | None) -> list[float] | None:
    return None if interval is None else [round(value, 6) + 0.0 for value in interval.values()]


# ---- judges with planted faults --------------------------------------------------------------------------------------


def stub_judge(answer: Any) -> Judge:
    """A real judge over a backend that says P(the place shown first) = answer(first text, second text)."""

    def reply(question: Question) -> Reply:
        from trivium.feedback.judges import prompts

        first, second = prompts.materials(question.messages[-1].content, prompts.DELIMITERS)[-2:]
        chance = float(answer(first.strip(), second.strip()))
        return Reply((chance, 1 - chance), prompt_tokens=7, completion_tokens=1)

    law = constitution.from_data({"principles": [{"name": "right", "question": "Which is right?"}]}, "test", "test")
    return Judge(FakeBackend(reply, name="stub"), law)


def planted(number: int, seed: int) -> list[Item]:
    """Answers named by their worth: gold prefers the larger number."""
    draws = generator(seed, "test/worth")
    found = []
    for n in range(number):
        one, other = draws.choice(100, 2, replace=False).tolist()
        found.append(item(n, 1 if one > other else -1, (str(one), str(other))))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_position_bias_is_found_by_asking(seed: int) -> None:
    """P(first place) = what the content is worth + 0.15, without noise: measured exactly, and nothing else moves."""
    with stub_judge(lambda first, second: 0.5 + (int(first) - int(second)) / 400 + 0.15) as judge:
        report, _ = audit(judge, planted(60, seed), CONFIG, seed=seed)
    measured = report["asked"]["compare"]
    assert measured["position"]["bias"]["estimate"] == pytest.approx(0.15)
    assert measured["position"]["first"]["estimate"] > 0.7 and measured["consistency"]["estimate"] < 0.6
    assert report["contradictions"] > 0 and report["usage"]["calls"] == 120


@pytest.mark.parametrize(
    ("answer", "kappa", "chance"),
    [
        (lambda first, second: 0.9 if int(first) > int(second) else 0.1, 1.0, False),
        (lambda first, second: 0.1 if int(first) > int(second) else 0.9, -1.0, True),
        (lambda first, second: 0.8, None, True),  # the place alone: ties after averaging, no order ever right
    ],
    ids=["perfect", "inverted", "place"],
)
def test_perfect_inverted_and_blind_judges(answer: Any, kappa: float | None, chance: bool) -> None:
    with stub_judge(answer) as judge:
        report, _ = audit(judge, planted(40, 1), CONFIG)
    measured = report["asked"]["compare"]
    assert report["chance"] is chance and report["reference"] == "gold"
    assert measured["kappa"]["estimate"] == pytest.approx(0.0 if kappa is None else kappa)
    assert ("no better than chance" in report["told"]) is chance


def test_a_random_judge_is_no_better_than_chance() -> None:
    found = []
    for seed in range(20):
        draws = generator(seed, "test/random")
        items = planted(80, seed)
        with stub_judge(lambda first, second, draws=draws: draws.random()) as judge:
            report, _ = audit(judge, items, CONFIG, seed=seed)
        found.append(report["chance"])
    assert sum(found) >= 18  # 97.5% of random judges, in expectation


def _simulated(seed: int, prompts: int, bias: float, noise: float, flip: float) -> tuple[list[Item], list[Comparison]]:
    """Two pairs a prompt that err together; a judge with a position bias, wrong on a share ``flip`` of the prompts."""
    draws = generator(seed, "test/simulated")
    items, said = [], []
    for number in range(prompts):
        shift, flipped = draws.normal(0, noise), draws.random() < flip
        for gold in draws.choice([-1, 1], 2).tolist():
            content = 0.5 + 0.2 * gold * (-1 if flipped else 1)
            place = bias + shift + draws.normal(0, noise)
            items.append(item(number, gold, (f"a{len(items)}", f"b{len(items)}")))
            said.append(both(content + place, content - place))
    return items, said


def test_intervals_hold_what_was_planted_as_often_as_they_say() -> None:
    """Of 120 simulated audits: a bias of 0.05, and a judge that errs on a share of 0.2 of the prompts (kappa 0.6)."""
    hits = np.zeros(2)
    for seed in range(120):
        items, said = _simulated(seed, prompts=60, bias=0.05, noise=0.05, flip=0.2)
        measured = comparison_measures(items, said, tie_margin=0.0, seed=seed)
        hits += [holds(measured["position"]["bias"], 0.05), holds(measured["kappa"], 0.6)]
    # 114 in expectation, a little fewer by the percentile method with 60 prompts; two deviations are 5
    assert (hits >= 106).all() and (hits < 120).all(), hits


def test_a_judge_that_errs_as_people_do_stands_beside_them() -> None:
    """Everybody flips the truth in 20%: kappa of any two is (1 - 2 * 0.2)² = 0.36, the judge's with people too."""
    found = []
    for seed in range(10):
        draws = generator(seed, "test/people")
        truths = draws.choice([-1, 1], 200)
        a, b, c, judge = (np.where(draws.random(200) < 0.2, -truths, truths).tolist() for _ in range(4))
        items = [item(n, a=a[n], b=b[n], c=c[n]) for n in range(200)]
        measured = people_measures(items, judge)
        found.append((measured["kappa"]["estimate"], measured["judge"]["kappa"]["estimate"]))
    assert np.mean(found, axis=0) == pytest.approx([0.36, 0.36], abs=0.04)


def test_a_judge_that_says_nothing_is_told() -> None:
    law = constitution.from_data({"principles": [{"name": "right", "question": "Which?"}]}, "test", "test")
    silent = pytest.raises(UserError, match=r"judge:mute gave no verdict on any of 5 pairs \(a refusal\)")
    with Judge(FakeBackend(lambda question: Reply(missing="a refusal"), name="mute"), law) as judge, silent:
        audit(judge, planted(5, 0), CONFIG)


def test_scores_decide_where_only_scores_are_asked() -> None:
    class Scorer:
        name, identity, constitution = "judge:s", "id", dataclasses.make_dataclass("C", ["name"])("c")
        usage = type("U", (), {"as_dict": lambda self: {}})()

        def score(self, answers: Sequence[Any]) -> list[Score]:
            return [Score(int(answer.text) / 10) for answer in answers]

    report, found = audit(Scorer(), planted(30, 0), CONFIG, ask=["score"])  # type: ignore[arg-type]
    assert report["asked"].keys() == {"score"} and not report["chance"] and not found
    assert report["asked"]["score"]["kappa"]["estimate"] == 1.0


# ---- which pairs -----------------------------------------------------------------------------------------------------


def ranking(number: int, annotator: str, tiers: tuple[int, ...], texts: Sequence[str] = "abc", **more: Any) -> Ranking:
    prompt = Prompt(f"p{number}", (Message("user", f"question {number}"),), answer="b")
    return Ranking(prompt, tuple(Response(text) for text in texts), tiers, annotator, **more)


def test_pairs_are_of_different_texts_that_somebody_else_compared() -> None:
    rankings = [
        ranking(0, "x", (0, 1, -1)),
        ranking(0, "y", (0, 0, 1)),
        ranking(0, "judge:me", (2, 1, 0), kind="ai"),
        ranking(1, "x", (0, 1, 2), texts=("same", "same", "other")),
        ranking(2, "judge:me", (0, 1, 2), kind="ai"),
    ]
    items = draw_pairs(rankings, 100, 0, judge="judge:me", gold=False)
    found = {}
    for one in items:
        first, second = (response.text for response in one.responses)
        turn = 1 if first < second else -1
        key = (one.prompt.id, *sorted((first, second)))
        found.setdefault(key, []).append({name: vote * turn for name, vote in one.votes.items()})
    assert found == {
        ("p0", "a", "b"): [{"x": 1, "y": 0}],
        ("p0", "a", "c"): [{"y": 1}],
        ("p0", "b", "c"): [{"y": 1}],
        ("p1", "other", "same"): [{"x": -1}, {"x": -1}],  # same is better, as the first and as the second response
    }


def test_prompts_take_turns_and_a_larger_limit_adds() -> None:
    rankings = [ranking(n, "x", (0, 1, 2)) for n in range(8)]
    few, many = (draw_pairs(rankings, limit, 3, judge="", gold=False) for limit in (10, 20))
    assert many[:10] == few
    assert len({one.prompt.id for one in few[:8]}) == 8
    swapped = [one.responses[0].text > one.responses[1].text for one in many]
    assert 4 < sum(swapped) < 16  # in a random order
    assert draw_pairs(rankings, 10, 4, judge="", gold=False) != few
    assert draw_pairs(rankings[::-1], 10, 3, judge="", gold=False) == few


def test_gold_orders_by_its_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    rankings = [ranking(0, "x", (-1, -1, -1), all_bad=True)]
    assert draw_pairs(rankings, 9, 0, judge="", gold=False) == []
    items = draw_pairs(rankings, 9, 0, judge="", gold=True)
    scored, failed = with_gold(items, VerifierConfig(kind="exact"))
    found = {tuple(response.text for response in one.responses): one.gold for one in scored}
    assert failed == 0 and len(found) == 3
    for (first, second), gold in found.items():
        assert gold == (first == "b") - (second == "b")
    assert all(set(one.reference) == {"gold"} for one in scored)


def test_pairs_that_gold_cannot_score_are_counted(tmp_path: Any) -> None:
    path = tmp_path / "gold.py"
    path.write_text("def score(prompt, response):\n    if response == 'c':\n        raise ValueError\n    return 1.0\n")
    items = draw_pairs([ranking(0, "x", (0, 1, 2))], 9, 0, judge="", gold=True)
    scored, failed = with_gold(items, _function(path))
    assert (len(scored), failed, scored[0].gold) == (1, 2, 0)
    with pytest.raises(UserError, match="scores none of 2 pairs"):
        with_gold([one for one in items if "c" in {response.text for response in one.responses}], _function(path))


def _function(path: Any) -> VerifierConfig:
    return VerifierConfig(kind="function", options={"path": f"{path}:score"})
