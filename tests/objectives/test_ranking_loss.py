"""Losses over rankings: published and hand-worked numbers, ties, unranked responses, and batches cut anywhere."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trivium.objectives.ranking import (
    TIES,
    outcome_log_probs,
    pairwise_loss,
    plackett_luce_loss,
    total_weight,
)

LOSSES = {"pairwise": pairwise_loss, "plackett_luce": plackett_luce_loss}


def value(loss: tuple[Tensor, dict[str, Tensor]]) -> float:
    return float(loss[0])


def gradient(loss, scores: list[float], *given, **options) -> list[float]:
    wide = torch.tensor(scores, requires_grad=True)
    loss(wide, *given, **options)[0].backward()
    assert wide.grad is not None
    return wide.grad.tolist()


def test_the_worked_example() -> None:
    """Scores A 0.8, C 0.5, B 0.9 and the ranking A > C > B, in whatever order the responses stand."""
    for order in itertools.permutations([(0.8, 0), (0.5, 1), (0.9, 2)]):
        scores, tiers = torch.tensor([score for score, _ in order]), [tier for _, tier in order]
        loss, metrics = pairwise_loss(scores, tiers)
        assert float(loss) == pytest.approx(0.737256, abs=1e-6)
        assert float(metrics["pair_accuracy"]) == pytest.approx(1 / 3)
        assert float(metrics["score_gap"]) == pytest.approx((0.3 - 0.4 - 0.1) / 3, abs=1e-6)
        assert value(pairwise_loss(scores, torch.tensor(tiers))) == pytest.approx(0.737256, abs=1e-6)
    pairs = [value(pairwise_loss(torch.tensor(pair), [0, 1])) for pair in ([0.8, 0.5], [0.5, 0.9], [0.8, 0.9])]
    assert pairs == pytest.approx([0.554355, 0.913015, 0.744397], abs=1e-6)
    assert [math.exp(-loss) for loss in pairs] == pytest.approx([0.574443, 0.401312, 0.475021], abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "pairwise", "listwise"),
    [
        ([0.0, 0.0, 0.0, 0.0], 0.693147, 3.178054),
        ([1.0, 0.0], 0.313262, 0.313262),
        ([2.0, 1.0, 0.0], 0.251150, 0.720868),
        ([0.0, 1.0, 2.0], 1.584484, 3.720868),
        ([3.0, 2.0, 1.0, 0.0], 0.207038, 1.161057),
    ],
)
def test_strict_rankings(scores: list[float], pairwise: float, listwise: float) -> None:
    tiers = list(range(len(scores)))
    assert value(pairwise_loss(torch.tensor(scores), tiers)) == pytest.approx(pairwise, abs=1e-6)
    for ties in ("soft", "ignore"):  # there are none
        assert value(plackett_luce_loss(torch.tensor(scores), tiers, ties=ties)) == pytest.approx(listwise, abs=1e-6)
        assert value(pairwise_loss(torch.tensor(scores), tiers, ties=ties)) == pytest.approx(pairwise, abs=1e-6)


def test_gradients_at_zero() -> None:
    assert gradient(pairwise_loss, [0.0] * 3, [0, 1, 2]) == pytest.approx([-1 / 3, 0.0, 1 / 3], abs=1e-6)
    assert gradient(plackett_luce_loss, [0.0] * 3, [0, 1, 2]) == pytest.approx([-2 / 3, -1 / 6, 5 / 6], abs=1e-6)


def test_margin_and_smoothing() -> None:
    pair = torch.tensor([1.0, 0.0])
    assert value(pairwise_loss(pair, [0, 1], margin=1.0)) == pytest.approx(math.log(2), abs=1e-6)
    assert value(pairwise_loss(pair, [0, 1], label_smoothing=0.1)) == pytest.approx(0.413262, abs=1e-6)
    assert value(pairwise_loss(pair, [0, 1], label_smoothing=0.2)) == pytest.approx(0.513262, abs=1e-6)  # label 0.8
    both = torch.tensor([1.0, 0.0, 1.0, 0.0])
    mixed = value(pairwise_loss(both, [0, 1, 0, 1], [0, 0, 1, 1], margin=torch.tensor([1.0, 0.0])))
    assert mixed == pytest.approx((math.log(2) + 0.313262) / 2, abs=1e-6)
    tie = value(pairwise_loss(pair, [0, 0], margin=torch.tensor([5.0])))
    assert tie == pytest.approx(value(pairwise_loss(pair, [0, 0])))  # a margin is for strict pairs


@pytest.mark.parametrize(
    ("ties", "parameter", "difference", "win", "lost", "tie"),
    [
        ("rao_kupper", 2.0, 0.0, 1 / 3, 1 / 3, 1 / 3),
        ("rao_kupper", 2.0, 1.0, 0.576117, 0.155362, 0.268521),
        ("davidson", 1.0, 1.0, 0.506480, 0.186324, 0.307196),
    ],
)
def test_models_with_ties(ties: str, parameter: float, difference: float, win: float, lost: float, tie: float) -> None:
    found = outcome_log_probs(torch.tensor(difference), ties, parameter)
    assert [float(log.exp()) for log in found] == pytest.approx([win, lost, tie], abs=1e-6)
    scores = torch.tensor([difference, 0.0])
    for tiers, expected in (([0, 1], win), ([1, 0], lost), ([0, 0], tie)):
        loss = value(pairwise_loss(scores, tiers, ties=ties, tie_parameter=parameter))
        assert math.exp(-loss) == pytest.approx(expected, abs=1e-6)


@given(difference=st.floats(-20, 20), ties=st.sampled_from(["rao_kupper", "davidson"]), parameter=st.floats(1.01, 5))
def test_outcomes_add_up_to_one(difference: float, ties: str, parameter: float) -> None:
    outcomes = outcome_log_probs(torch.tensor(difference, dtype=torch.float64), ties, parameter)
    assert sum(float(outcome.exp()) for outcome in outcomes) == pytest.approx(1.0, abs=1e-9)


def test_a_tie_pulls_together_and_is_never_an_order() -> None:
    scores = torch.tensor([1.0, 0.0])
    assert value(pairwise_loss(scores, [0, 0])) == pytest.approx((0.313262 + 1.313262) / 2, abs=1e-6)
    assert value(pairwise_loss(torch.zeros(2), [0, 0])) == pytest.approx(math.log(2), abs=1e-6)
    assert value(pairwise_loss(scores, [0, 0], ties="ignore")) == 0.0
    for name, loss in LOSSES.items():
        for ties in TIES if name == "pairwise" else ("soft",):
            options = {} if name != "pairwise" else {"tie_parameter": 1.5}
            pulled = gradient(loss, [1.0, 0.0], [0, 0], ties=ties, **options)
            assert pulled[0] == pytest.approx(-pulled[1])
            assert pulled[0] == 0.0 if ties == "ignore" else pulled[0] > 0.1, (name, ties)
            assert gradient(loss, [0.4, 0.4], [0, 0], ties=ties, **options) == pytest.approx([0.0, 0.0], abs=1e-7)


def test_a_tie_in_a_list() -> None:
    """A and B tied above C: each choice is among C and what is expected to be left of the tier."""
    a, b, c = 0.3, -0.2, 0.1
    both, rest = math.exp(a) + math.exp(b), math.exp(c)
    scores = torch.tensor([a, b, c])
    soft = math.log(both + rest) - a + math.log(both / 2 + rest) - b
    assert value(plackett_luce_loss(scores, [0, 0, 1])) == pytest.approx(soft, abs=1e-6)
    ignored = math.log(math.exp(a) + rest) - a + math.log(math.exp(b) + rest) - b
    assert value(plackett_luce_loss(scores, [0, 0, 1], ties="ignore")) == pytest.approx(ignored, abs=1e-6)
    for tiers in itertools.product(range(2), repeat=4):  # whatever is tied, equal scores cost ln K!
        assert value(plackett_luce_loss(torch.zeros(4), tiers)) == pytest.approx(math.log(24), abs=1e-5)
    in_double = plackett_luce_loss(torch.zeros(3, dtype=torch.float64), [0, 0, 0])[0]  # also what is left of a tier
    assert float(in_double) == pytest.approx(math.log(6), abs=1e-14)
    # the first two of four in order, the others below: the likelihood of two choices
    four = torch.tensor([1.0, 0.5, 0.2, -1.0])
    first = float(four.logsumexp(0) - four[0] + four[1:].logsumexp(0) - four[1])
    assert value(plackett_luce_loss(four, [0, 1, 2, 2], ties="ignore")) == pytest.approx(first, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_is_said_about_the_unranked(name: str) -> None:
    """Neither that they are worse, nor anything that their scores could spoil."""
    loss = LOSSES[name]
    expected = value(loss(torch.tensor([0.8, 0.5, 0.9]), [0, 1, 2]))
    scores = [math.nan, 0.8, 0.5, math.inf, 0.9]
    assert value(loss(torch.tensor(scores), [-1, 0, 1, -1, 2])) == pytest.approx(expected, abs=1e-6)
    found = gradient(loss, scores, [-1, 0, 1, -1, 2])
    assert found[0] == found[3] == 0.0 and all(map(math.isfinite, found))
    for tiers in ([-1, -1], [0, -1]):
        empty, metrics = loss(torch.tensor([1.0, 2.0], requires_grad=True), tiers)
        empty.backward()
        assert float(empty.detach()) == 0.0 and float(metrics["pair_accuracy"]) == 0.0
        assert total_weight(tiers) == 0.0


def test_a_ranking_left_out_cannot_spoil_the_others() -> None:
    """Zero times NaN is NaN, so a weight of 0 must not be a factor."""
    scores = [0.8, 0.5, 0.9, math.nan, 0.0]
    for loss in LOSSES.values():
        for centering in (0.0, 0.5):
            options = {"weights": [1.0, 0.0], "centering": centering}
            found = gradient(loss, scores, [0, 1, 2, 0, 1], [0, 0, 0, 1, 1], **options)
            alone = gradient(loss, scores[:3], [0, 1, 2], centering=centering)
            assert found == pytest.approx([*alone, 0.0, 0.0], abs=1e-6)
            both = loss(torch.tensor(scores), [0, 1, 2, 0, 1], [0, 0, 0, 1, 1], **options)
            assert value(both) == pytest.approx(value(loss(torch.tensor(scores[:3]), [0, 1, 2], centering=centering)))


def test_a_ranking_of_nine_counts_as_much_as_one_of_two() -> None:
    scores = torch.cat([torch.zeros(9), torch.tensor([3.0, 0.0])])
    tiers, rankings = [*range(9), 0, 1], [0] * 9 + [1] * 2
    easy = math.log1p(math.exp(-3.0))
    assert value(pairwise_loss(scores, tiers, rankings)) == pytest.approx((math.log(2) + easy) / 2, abs=1e-6)
    by_pair = value(pairwise_loss(scores, tiers, rankings, reduction="pair"))
    assert by_pair == pytest.approx((36 * math.log(2) + easy) / 37, abs=1e-6)
    assert total_weight(tiers, rankings) == 2 and total_weight(tiers, rankings, reduction="pair") == 37


def test_weights_of_rankings() -> None:
    scores, tiers, rankings = torch.tensor([1.0, 0.0, 0.0, 1.0]), [0, 1, 0, 1], [0, 0, 1, 1]
    for loss in LOSSES.values():
        assert value(loss(scores, tiers, rankings, weights=[3.0, 1.0])) == pytest.approx(
            (3 * 0.313262 + 1.313262) / 4, abs=1e-6
        )
        assert value(loss(scores, tiers, rankings, weights=[3.0, 0.0])) == pytest.approx(0.313262, abs=1e-6)
        assert value(loss(scores, tiers, rankings, weights=torch.zeros(2))) == 0.0


def test_centering_moves_the_level_of_the_ranked() -> None:
    scores = torch.tensor([2.0, 4.0, 100.0])
    plain = value(pairwise_loss(scores, [0, 1, -1]))
    assert value(pairwise_loss(scores, [0, 1, -1], centering=0.1)) == pytest.approx(plain + 0.1 * 9.0, abs=1e-5)
    assert sum(gradient(pairwise_loss, [2.0, 4.0], [0, 1])) == pytest.approx(0.0, abs=1e-6)
    assert sum(gradient(pairwise_loss, [2.0, 4.0], [0, 1], centering=0.1)) == pytest.approx(0.1 * 2 * 3.0, abs=1e-5)


RANKINGS = st.lists(
    st.lists(st.tuples(st.floats(-3, 3, width=32), st.integers(-1, 3)), min_size=1, max_size=5), min_size=1, max_size=6
)


@settings(max_examples=60)
@given(
    rankings=RANKINGS,
    name=st.sampled_from(sorted(LOSSES)),
    reduction=st.sampled_from(["ranking", "pair"]),
    ties=st.sampled_from(TIES),
    cut=st.integers(0, 6),
)
def test_gradients_do_not_depend_on_the_cut(
    rankings: list[list[tuple[float, int]]], name: str, reduction: str, ties: str, cut: int
) -> None:
    """Two micro-batches with the total of the whole batch add up to the batch: loss, metrics and gradients."""
    options: dict[str, object] = {"ties": ties, "centering": 0.2}
    shape = {"ties": ties, "reduction": reduction}
    if name == "pairwise":
        options |= {"reduction": reduction, "label_smoothing": 0.1}
    else:
        options["ties"] = ties if ties in ("soft", "ignore") else "soft"
        shape = {"ties": options["ties"], "reduction": "ranking"}
    weights = [0.5 + number for number in range(len(rankings))]

    def flat(part: list[list[tuple[float, int]]]) -> tuple[list[float], list[int], list[int]]:
        rows = [(score, tier, number) for number, ranking in enumerate(part) for score, tier in ranking]
        return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]

    scores, tiers, numbers = flat(rankings)
    total = total_weight(tiers, numbers, weights=weights, **shape)  # type: ignore[arg-type]
    whole = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    loss, metrics = LOSSES[name](whole, tiers, numbers, weights=weights, **options)  # type: ignore[operator]
    loss.backward()
    cut_scores = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    pieces, first = [], 0
    for part, own in ((rankings[:cut], weights[:cut]), (rankings[cut:], weights[cut:])):
        _, some_tiers, some_numbers = flat(part)
        piece = cut_scores[first : first + len(some_tiers)]
        first += len(some_tiers)
        pieces.append(LOSSES[name](piece, some_tiers, some_numbers, weights=own, total=total, **options))  # type: ignore[operator]
    torch.stack([piece for piece, _ in pieces]).sum().backward()
    assert sum(float(piece.detach()) for piece, _ in pieces) == pytest.approx(float(loss.detach()), abs=1e-9)
    for key, expected in metrics.items():
        assert sum(float(told[key]) for _, told in pieces) == pytest.approx(float(expected), abs=1e-9)
    torch.testing.assert_close(cut_scores.grad, whole.grad, rtol=0, atol=1e-9)


@given(st.permutations(list(range(5))))
def test_the_order_of_the_responses_does_not_matter(order: list[int]) -> None:
    scores, tiers = torch.tensor([0.3, -1.0, 2.0, 0.5, 0.0], dtype=torch.float64), [1, 0, -1, 1, 2]
    for loss in LOSSES.values():
        expected = value(loss(scores, tiers))
        assert value(loss(scores[order], [tiers[place] for place in order])) == pytest.approx(expected, abs=1e-12)


def test_differences_are_taken_in_float32() -> None:
    """bfloat16 scores of 100 and 100.5 differ by 0.5 there; a softmax in bfloat16 would lose more than the gap."""
    half = torch.tensor([100.5, 100.0], dtype=torch.bfloat16)
    loss, _ = pairwise_loss(half, [0, 1])
    assert loss.dtype == torch.float32 and float(loss) == pytest.approx(math.log1p(math.exp(-0.5)), abs=1e-6)
    far = torch.tensor([-500.0, 500.0], requires_grad=True)
    for ties in TIES:
        loss, _ = pairwise_loss(far, [0, 1], ties=ties, tie_parameter=2.0)
        (found,) = torch.autograd.grad(loss, far)
        assert math.isfinite(float(loss.detach())) and bool(found.isfinite().all())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ties": "random"}, "unknown ties 'random'"),
        ({"ties": "rao_kupper", "tie_parameter": 1.0}, "theta of Rao-Kupper is above 1"),
        ({"reduction": "mean"}, "unknown reduction 'mean'"),
        ({"label_smoothing": 0.5}, "between 0 and 0.5"),
        ({"weights": []}, "need a weight"),
    ],
)
def test_impossible_options(options: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pairwise_loss(torch.zeros(2), [0, 1], **options)


def test_impossible_shapes() -> None:
    with pytest.raises(ValueError, match="need one tier each, not 3"):
        pairwise_loss(torch.zeros(2), [0, 1, 2])
    with pytest.raises(ValueError, match="ranking numbers"):
        pairwise_loss(torch.zeros(2), [0, 1], [0, -1])
    with pytest.raises(ValueError, match="for pairs"):
        plackett_luce_loss(torch.zeros(2), [0, 1], ties="davidson")


# ---- pairs with probabilities ----------------------------------------------------------------------------------------


def soft(scores: list[float], pairs: list[tuple[int, int]], probabilities: list[float], **options) -> float:
    tiers = [0] * len(scores)  # whatever they say
    return value(pairwise_loss(torch.tensor(scores), tiers, preferences=(pairs, probabilities), **options))


def test_a_probability_is_the_target_of_its_pair() -> None:
    """d = 1: -(0.8 ln 0.731059 + 0.2 ln 0.268941)."""
    assert soft([1.0, 0.0], [(0, 1)], [0.8]) == pytest.approx(0.513262, abs=1e-6)
    assert soft([0.0, 1.0], [(0, 1)], [0.2]) == pytest.approx(0.513262, abs=1e-6)
    assert soft([1.0, 0.0], [(0, 1)], [0.2]) == pytest.approx(1.113262, abs=1e-6)
    pair = torch.tensor([1.0, 0.0])
    assert soft([1.0, 0.0], [(0, 1)], [1.0]) == value(pairwise_loss(pair, [0, 1]))
    assert soft([1.0, 0.0], [(0, 1)], [0.0]) == value(pairwise_loss(pair, [1, 0]))
    assert soft([1.0, 0.0], [(0, 1)], [0.5]) == pytest.approx(value(pairwise_loss(pair, [0, 0])))
    tensors = (torch.tensor([[0, 1]]), torch.tensor([0.8], dtype=torch.float64))
    assert value(pairwise_loss(pair, [0, 0], preferences=tensors)) == pytest.approx(0.513262, abs=1e-6)
    # smoothing takes a share of what was said to be the other way round: 0.9 * 0.8 + 0.1 * 0.2 = 0.74
    smoothed = 0.74 * 0.313262 + 0.26 * 1.313262
    assert soft([1.0, 0.0], [(0, 1)], [0.8], label_smoothing=0.1) == pytest.approx(smoothed, abs=1e-6)
    assert soft([1.0, 0.0], [(0, 1)], [0.8], margin=5.0) == pytest.approx(0.513262, abs=1e-6)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.7, 1.0])
def test_the_loss_is_least_where_the_model_says_the_same(ties: str, probability: float) -> None:
    """The gradient is what the model says less what was said; under Rao-Kupper of those pairs that are no tie."""
    for difference in (-2.0, 0.0, 0.3):
        scores = torch.tensor([difference, 0.0], dtype=torch.float64, requires_grad=True)
        loss, _ = pairwise_loss(scores, [0, 0], ties=ties, tie_parameter=2.0, preferences=([(0, 1)], [probability]))
        win, lost, _ = outcome_log_probs(scores.detach()[0] - scores.detach()[1], ties, 2.0)
        odds = win - lost
        expected = -(probability * odds.sigmoid().log() + (1 - probability) * (-odds).sigmoid().log())
        assert float(loss.detach()) == pytest.approx(float(expected))
        (found,) = torch.autograd.grad(loss, scores)
        assert math.copysign(1, float(found[0])) == math.copysign(1, float(odds.sigmoid() - probability)) or (
            abs(float(odds.sigmoid()) - probability) < 1e-12 and abs(float(found[0])) < 1e-12
        )


def test_probabilities_replace_the_tiers_of_their_ranking_alone() -> None:
    """Of four: a ranking of three with two pairs said, an ordinary pair. The third pair of the three was not said."""
    scores, tiers, numbers = torch.tensor([1.0, 0.0, 5.0, 1.0, 0.0]), [2, 0, 1, 0, 1], [0, 0, 0, 1, 1]
    preferences = ([(0, 1), (2, 1)], [0.8, 0.5])
    tied = (math.log1p(math.exp(-5)) + math.log1p(math.exp(5))) / 2
    loss, metrics = pairwise_loss(scores, tiers, numbers, preferences=preferences)
    assert float(loss) == pytest.approx(((0.513262 + tied) / 2 + 0.313262) / 2, abs=1e-6)
    assert float(metrics["pair_accuracy"]) == pytest.approx(((1 + 0.5) / 2 + 1) / 2)
    assert float(metrics["score_gap"]) == pytest.approx((1.0 / 2 + 1.0) / 2)
    by_pair = pairwise_loss(scores, tiers, numbers, preferences=preferences, reduction="pair")
    assert value(by_pair) == pytest.approx((0.513262 + tied + 0.313262) / 3, abs=1e-6)
    assert total_weight(tiers, numbers, preferences=preferences) == 2
    assert total_weight(tiers, numbers, preferences=preferences, reduction="pair") == 3
    assert total_weight(tiers, numbers, preferences=preferences, reduction="pair", weights=[0.5, 2.0]) == 3
    wrong = pairwise_loss(scores[:2], [0, 1], preferences=([(0, 1)], [0.3]))[1]  # the second is the likelier
    assert (float(wrong["pair_accuracy"]), float(wrong["score_gap"])) == (0.0, -1.0)
    ignored = pairwise_loss(torch.zeros(2), [0, 0], ties="ignore", preferences=([(0, 1)], [0.5]))
    assert value(ignored) == pytest.approx(math.log(2))  # a probability of 0.5 was said, a tie was not


SOFT = st.lists(
    st.tuples(st.lists(st.floats(-3, 3), min_size=2, max_size=4), st.lists(st.none() | st.floats(0, 1), min_size=6)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60)
@given(SOFT, st.sampled_from(["ranking", "pair"]), st.sampled_from(TIES), st.integers(0, 5), st.randoms())
def test_probabilities_may_be_cut_and_turned_round(given_, reduction, ties, cut, random) -> None:
    """Two parts add up to the batch, with rankings that have probabilities beside some that have none; the order of the
    responses, of the pairs, and which of a pair comes first do not matter."""
    options = {"ties": ties, "label_smoothing": 0.1, "centering": 0.2, "reduction": reduction}
    shape = {"ties": ties, "reduction": reduction}

    def flat(part, turn=False):
        scores, tiers, numbers, pairs, said = [], [], [], [], []
        for number, (own, probabilities) in enumerate(part):
            order = list(range(len(own)))
            if turn:
                random.shuffle(order)
            entry_of = {item: len(scores) + place for place, item in enumerate(order)}
            for item in order:
                scores.append(own[item])
                tiers.append(item // 2)
                numbers.append(number)
            found = zip(itertools.combinations(range(len(own)), 2), probabilities, strict=False)
            for (first, second), p in found:
                if p is not None:
                    swapped = turn and random.random() < 0.5
                    pairs.append(
                        (entry_of[second], entry_of[first]) if swapped else (entry_of[first], entry_of[second])
                    )
                    said.append(1 - p if swapped else p)
        if turn:
            together = list(zip(pairs, said, strict=True))
            random.shuffle(together)
            pairs, said = [pair for pair, _ in together], [p for _, p in together]
        return torch.tensor(scores, dtype=torch.float64), tiers, numbers, (pairs, said)

    weights = [0.5 + number for number in range(len(given_))]
    scores, tiers, numbers, preferences = flat(given_)
    total = total_weight(tiers, numbers, weights=weights, preferences=preferences, **shape)
    expected, metrics = pairwise_loss(scores, tiers, numbers, weights=weights, preferences=preferences, **options)
    pieces = []
    for part, own in ((given_[:cut], weights[:cut]), (given_[cut:], weights[cut:])):
        some, some_tiers, some_numbers, some_said = flat(part)
        pieces.append(
            pairwise_loss(some, some_tiers, some_numbers, weights=own, total=total, preferences=some_said, **options)
        )
    assert sum(float(piece) for piece, _ in pieces) == pytest.approx(float(expected), abs=1e-9)
    for key, told in metrics.items():
        assert sum(float(piece[key]) for _, piece in pieces) == pytest.approx(float(told), abs=1e-9)
    scores, tiers, numbers, preferences = flat(given_, turn=True)
    turned = pairwise_loss(scores, tiers, numbers, weights=weights, preferences=preferences, **options)
    assert value(turned) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize(
    ("tiers", "preferences", "told"),
    [
        ([0, 1, 0], ([(0, 2)], [0.5]), "not two ranked entries of one ranking"),
        ([0, 1, 0], ([(0, 0)], [0.5]), "not two ranked entries of one ranking"),
        ([0, 1, 0], ([(0, 7)], [0.5]), "not two ranked entries of one ranking"),
        ([0, -1, 0], ([(0, 1)], [0.5]), "not two ranked entries of one ranking"),
        ([0, 1, 0], ([(0, 1)], [1.1]), "between 0 and 1"),
        ([0, 1, 0], ([(0, 1)], [math.nan]), "between 0 and 1"),
        ([0, 1, 0], ([(0, 1)], []), "shorter"),
    ],
)
def test_impossible_probabilities(tiers: list[int], preferences: tuple, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pairwise_loss(torch.zeros(3), tiers, [0, 0, 1], preferences=preferences)
