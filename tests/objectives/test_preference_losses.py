"""Each loss over pairs against numbers worked out by hand, and what must hold for any pairs and any of the losses."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trivium.objectives.preference import PAIR_LOSSES, REFERENCE_FREE, dpo_loss

# Two pairs. Log ratios of the first: +1 and -2, of the second: -0.5 and +0.25. At beta 0.5 the rewards are 0.5 and -1,
# -0.25 and 0.125; the margins 1.5 and -0.375.
PAIRS = tuple(
    torch.tensor(values, dtype=torch.float64) for values in ([-3.0, -8.5], [-7.0, -1.75], [-4.0, -8.0], [-5.0, -2.0])
)
LENGTHS = [2, 5], [4, 7]


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize(
    ("loss", "options", "costs"),
    [
        # -ln s(1.5) and -ln s(-0.375)
        ("sigmoid", {}, [0.201413, 0.898123]),
        # the other way round 1.701413 and 0.523123: 0.9 * 0.201413 + 0.1 * 1.701413, 0.9 * 0.898123 + 0.1 * 0.523123
        ("sigmoid", {"label_smoothing": 0.1}, [0.351413, 0.860623]),
        # (0.9 * 0.201413 - 0.1 * 1.701413) / 0.8, (0.9 * 0.898123 - 0.1 * 0.523123) / 0.8
        ("robust", {"label_smoothing": 0.1}, [0.013913, 0.944998]),
        ("robust", {}, [0.201413, 0.898123]),
        # (3 - 1 / (2 * 0.5))^2 = 2^2 and (-0.75 - 1)^2 = 1.75^2
        ("ipo", {}, [4.0, 3.0625]),
        # means over tokens: 1/2 + 2/4 = 1 and -0.5/5 - 0.25/7 = -0.135714: 0^2 and 1.135714^2
        ("ipo", {"lengths": LENGTHS}, [0.0, 1.289847]),
        # 1 - 1.5 is below 0; 1 + 0.375
        ("hinge", {}, [0.0, 1.375]),
        # s(-0.5) + s(-1) = 0.377541 + 0.268941, s(0.25) + s(0.125) = 0.562177 + 0.531209
        ("apo_zero", {}, [0.646482, 1.093386]),
        # s(0.5) + s(-1.5) = 0.622459 + 0.182426, s(-0.25) + s(0.375) = 0.437823 + 0.592667
        ("apo_down", {}, [0.804885, 1.030490]),
        # means -1.5 and -1.75, -1.7 and -0.25; 2 * 0.25 - 0.5 = 0: ln 2; 2 * -1.45 - 0.5 = -3.4: 3.4 + ln(1 + e^-3.4)
        ("simpo", {"beta": 2.0, "target_margin": 0.5, "lengths": LENGTHS}, [0.693147, 3.432829]),
        # the same without the references; margin 0.5 * 4 = 2 and 0.5 * -6.75 = -3.375
        ("sigmoid", {"reference_free": True}, [0.126928, 3.408644]),
        # means over tokens, of the references too: margin 0.5 * 1 and 0.5 * -0.135714
        ("sigmoid", {"lengths": LENGTHS}, [0.474077, 0.727651]),
    ],
)
def test_each_loss_by_hand(loss: str, options: dict[str, Any], costs: list[float]) -> None:
    told = {"loss": loss, "beta": 0.5, **options}
    pairs = (*PAIRS[:2], None, None) if told.pop("reference_free", False) else PAIRS
    assert [float(dpo_loss(*pairs, weights=only, **told)[0]) for only in ([1, 0], [0, 1])] == pytest.approx(
        costs, abs=2e-6
    )
    assert float(dpo_loss(*pairs, **told)[0]) == pytest.approx(sum(costs) / 2, abs=2e-6)


def test_orpo_by_hand() -> None:
    """Mean probabilities 0.5 and 0.2: odds 1 and 1/4, their ratio 4: -ln(4/5). 0.1 and 0.75: odds 1/9 and 3: ln 28."""
    chosen = torch.tensor([2 * math.log(0.5), 5 * math.log(0.1)], dtype=torch.float64)
    rejected = torch.tensor([4 * math.log(0.2), 7 * math.log(0.75)], dtype=torch.float64)
    loss, metrics = dpo_loss(chosen, rejected, None, None, loss="orpo", beta=0.5, lengths=LENGTHS)
    assert float(loss) == pytest.approx(0.5 * (0.223144 + 3.332205) / 2, abs=1e-6)
    # rewards are beta times the mean log-probability
    expected = 0.5 * (math.log(0.5) + math.log(0.1)) / 2, 0.5 * (math.log(0.2) + math.log(0.75)) / 2
    assert (float(metrics["chosen_reward"]), float(metrics["rejected_reward"])) == pytest.approx(expected)
    assert float(metrics["accuracy"]) == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orpo_of_an_answer_that_is_certain_is_finite(dtype: torch.dtype) -> None:
    """A small model gives a learned answer the probability 1 in float32; its odds are infinite."""
    chosen, rejected = torch.tensor([0.0, -2.0], dtype=dtype), torch.tensor([-3.0, 0.0], dtype=dtype)
    chosen.requires_grad_(), rejected.requires_grad_()
    loss, _ = dpo_loss(chosen, rejected, None, None, loss="orpo", beta=1.0, lengths=([2, 2], [2, 2]))
    loss.backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert math.isfinite(float(loss.detach())) and bool(torch.isfinite(torch.stack([chosen.grad, rejected.grad])).all())
    assert float(rejected.grad[1]) > 0  # what is certain and wrong is still taken down


M = [1.5, -0.375]
C, R = [0.5, -0.25], [-1.0, 0.125]


def slope(value: float) -> float:
    """Of the logistic function."""
    return logistic(value) * logistic(-value)


@pytest.mark.parametrize(
    ("loss", "options", "of_chosen", "of_rejected"),
    [
        ("sigmoid", {}, [-0.5 * logistic(-m) for m in M], [0.5 * logistic(-m) for m in M]),
        (
            "robust",
            {"label_smoothing": 0.1},
            [-0.5 * (0.9 * logistic(-m) + 0.1 * logistic(m)) / 0.8 for m in M],
            [0.5 * (0.9 * logistic(-m) + 0.1 * logistic(m)) / 0.8 for m in M],
        ),
        ("ipo", {}, [2 * 2.0, 2 * -1.75], [-2 * 2.0, 2 * 1.75]),
        ("hinge", {}, [0.0, -0.5], [0.0, 0.5]),
        ("apo_zero", {}, [-0.5 * slope(c) for c in C], [0.5 * slope(r) for r in R]),
        (
            "apo_down",
            {},
            [0.5 * (slope(c) - slope(m)) for c, m in zip(C, M, strict=True)],
            [0.5 * slope(m) for m in M],
        ),
        # margins 2 * 0.25 = 0.5 and -2.9, each token has its part of the mean
        (
            "simpo",
            {"beta": 2.0, "target_margin": 0.5, "lengths": LENGTHS},
            [-2 * logistic(0.0) / 2, -2 * logistic(3.4) / 5],
            [2 * logistic(0.0) / 4, 2 * logistic(3.4) / 7],
        ),
    ],
)
def test_each_gradient_by_hand(
    loss: str, options: dict[str, Any], of_chosen: list[float], of_rejected: list[float]
) -> None:
    chosen, rejected = (value.clone().requires_grad_() for value in PAIRS[:2])
    references = [value.clone().requires_grad_() for value in PAIRS[2:]]
    told = {"beta": 0.5, **options}
    dpo_loss(chosen, rejected, *references, loss=loss, total=1.0, **told)[0].backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx(of_chosen, abs=1e-9)
    assert rejected.grad.tolist() == pytest.approx(of_rejected, abs=1e-9)
    assert all(reference.grad is None for reference in references)


def options_of(loss: str) -> dict[str, Any]:
    """Options under which every part of a loss takes part."""
    told: dict[str, Any] = {"loss": loss, "beta": 0.7}
    if loss in ("sigmoid", "robust"):
        told["label_smoothing"] = 0.2
    if loss == "simpo":
        told["target_margin"] = 0.3
    return told


@pytest.mark.parametrize(
    ("loss", "normalised"),
    [(loss, True) for loss in PAIR_LOSSES] + [(loss, False) for loss in PAIR_LOSSES if loss not in REFERENCE_FREE],
)
def test_gradients_are_those_of_small_steps(loss: str, normalised: bool) -> None:
    told = options_of(loss) | ({"lengths": LENGTHS} if normalised else {})

    def of(chosen: Tensor, rejected: Tensor) -> Tensor:
        return dpo_loss(chosen, rejected, *PAIRS[2:], weights=[2.0, 0.5], **told)[0]

    assert torch.autograd.gradcheck(of, [value.clone().requires_grad_() for value in PAIRS[:2]])


@pytest.mark.parametrize("loss", [loss for loss in PAIR_LOSSES if loss != "ipo"])
def test_a_policy_that_is_the_reference(loss: str) -> None:
    """All rewards are 0. ORPO and SimPO know no reference: two answers of equal probability take its place."""
    told = {"loss": loss, "beta": 0.5}
    if loss in REFERENCE_FREE:
        found, metrics = dpo_loss(PAIRS[0], PAIRS[0], None, None, lengths=([3, 4], [3, 4]), **told)
    else:
        found, metrics = dpo_loss(*PAIRS[:2], *PAIRS[:2], **told)
    expected = {"hinge": 1.0, "apo_zero": 1.0, "apo_down": 1.0, "orpo": 0.5 * math.log(2)}.get(loss, math.log(2))
    assert float(found) == pytest.approx(expected)
    assert float(metrics["accuracy"]) == 0.5 and float(metrics["margin"]) == 0.0


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_a_weight_of_0_leaves_a_pair_out_even_if_it_is_nan(loss: str) -> None:
    told = options_of(loss) | {"lengths": ([2, math.nan], [4, 0])}
    chosen = torch.tensor([-3.0, math.nan], dtype=torch.float64).requires_grad_()
    whole, metrics = dpo_loss(chosen, *PAIRS[1:], weights=[2.0, 0.0], **told)
    whole.backward()
    told["lengths"] = [2], [4]
    alone, _ = dpo_loss(*[value[:1] for value in PAIRS], **told)
    assert float(whole.detach()) == pytest.approx(float(alone))
    assert chosen.grad is not None and float(chosen.grad[1]) == 0.0 and math.isfinite(float(chosen.grad[0]))
    assert all(math.isfinite(float(value)) for value in metrics.values())


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_answers_that_are_far_apart_stay_finite(loss: str) -> None:
    """Thousands of tokens: log ratios of thousands of nats, either way, in float32."""
    chosen = torch.tensor([-9000.0, -1.0], requires_grad=True)
    rejected = torch.tensor([-1.0, -9000.0], requires_grad=True)
    told = options_of(loss) | {"lengths": ([1, 1], [1, 1])}
    cost, metrics = dpo_loss(chosen, rejected, rejected.detach(), chosen.detach(), **told)
    cost.backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert all(bool(torch.isfinite(value).all()) for value in (cost, chosen.grad, rejected.grad, *metrics.values()))


@pytest.mark.parametrize("loss", ["sigmoid", "simpo", "orpo"])
def test_an_answer_without_tokens_has_the_mean_0(loss: str) -> None:
    """Its sum is 0 too, as the margin is that follows: 0 over 0 would be a NaN for the whole batch."""
    chosen = torch.zeros(1, requires_grad=True)
    cost, metrics = dpo_loss(chosen, torch.zeros(1), torch.zeros(1), None, loss=loss, beta=1.0, lengths=([0], [0]))
    cost.backward()
    assert float(cost.detach()) == pytest.approx(math.log(2)) and float(metrics["margin"]) == 0.0
    assert chosen.grad is not None and math.isfinite(float(chosen.grad))


def test_the_odds_ratio_of_float32_is_that_of_float64() -> None:
    """From answers that are all but certain to such as have the probability e^-40."""
    means = torch.tensor([-1e-4, -0.01, -0.5, -3.0, -40.0], dtype=torch.float64)
    chosen, rejected = torch.cartesian_prod(means, means).T
    lengths = [1] * len(chosen), [1] * len(chosen)
    for at in range(len(chosen)):
        only = [float(place == at) for place in range(len(chosen))]
        exact, single = (
            dpo_loss(chosen.to(kind), rejected.to(kind), None, None, loss="orpo", lengths=lengths, weights=only)[0]
            for kind in (torch.float64, torch.float32)
        )
        assert float(single) == pytest.approx(float(exact), rel=2e-5, abs=1e-7)


# ---- any pairs ------------------------------------------------------------------------------------------------------

log_prob = st.floats(-60, -0.01)
row = st.tuples(log_prob, log_prob, log_prob, log_prob, st.integers(1, 9), st.integers(1, 9), st.floats(0, 5))


def run(rows: Sequence[tuple[float, ...]], told: dict[str, Any], total: float | None = None) -> list[Tensor]:
    """Loss, metrics and the gradients of all log-probabilities of the policy, in the order of the rows."""
    columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]
    chosen, rejected = columns[0].requires_grad_(), columns[1].requires_grad_()
    lengths = (columns[4], columns[5]) if told["loss"] in REFERENCE_FREE else None
    weights = columns[6]
    loss, metrics = dpo_loss(chosen, rejected, *columns[2:4], lengths=lengths, weights=weights, total=total, **told)
    loss.backward()
    assert chosen.grad is not None and rejected.grad is not None
    return [loss.detach(), *metrics.values(), chosen.grad, rejected.grad]


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(PAIR_LOSSES), st.lists(row, min_size=1, max_size=7), st.data())
def test_cuts_and_order_do_not_matter(loss: str, rows: list[tuple[float, ...]], data: st.DataObject) -> None:
    """Loss, metrics and gradients of a batch are those of its parts, in any order, with the total of the whole."""
    told = options_of(loss)
    whole = run(rows, told)
    order = data.draw(st.permutations(range(len(rows))))
    cut = data.draw(st.integers(0, len(rows)))
    total = sum(one[6] for one in rows)
    parts = [run([rows[place] for place in part], told, total) for part in (order[:cut], order[cut:]) if part]
    for at in range(5):
        assert sum(float(part[at]) for part in parts) == pytest.approx(float(whole[at]), abs=1e-9)
    for at in (5, 6):
        joined = torch.cat([part[at] for part in parts])
        assert joined.tolist() == pytest.approx(whole[at][order].tolist(), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.floats(-30, 30), st.floats(0, 0.49))
def test_robust_is_right_on_average(margin: float, wrong: float) -> None:
    """Of pairs a share of which is the wrong way round, its mean is what sigmoid costs with all of them right."""
    one, zero = torch.tensor([margin], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    told = {"loss": "robust", "label_smoothing": wrong, "beta": 1.0}
    right, turned = (float(dpo_loss(*pair, None, None, **told)[0]) for pair in ((one, zero), (zero, one)))
    clean = float(dpo_loss(one, zero, None, None, beta=1.0)[0])
    assert (1 - wrong) * right + wrong * turned == pytest.approx(clean, abs=1e-7)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([loss for loss in PAIR_LOSSES if not loss.startswith("apo")]),
    st.lists(row, min_size=1, max_size=4),
    st.floats(-5, 5),
)
def test_a_constant_of_the_prompt_cancels(loss: str, rows: list[tuple[float, ...]], shift: float) -> None:
    """In the difference of two log ratios; SimPO and ORPO read no reference at all."""
    told = options_of(loss)
    if loss in REFERENCE_FREE:
        moved = [(*one[:2], one[2] + shift, one[3] - shift, *one[4:]) for one in rows]  # no reference is read at all
    else:
        moved = [(*one[:2], one[2] + shift, one[3] + shift, *one[4:]) for one in rows]
    assert float(run(moved, told)[0]) == pytest.approx(float(run(rows, told)[0]), rel=1e-9, abs=1e-9)


def test_apo_looks_at_each_answer_by_itself() -> None:
    """The first pair, both log ratios 2 less: rewards -0.5 and -2 at the same margin 1.5. s(0.5) + s(-2) = 0.741662 in
    place of 0.646482, s(-0.5) + s(-1.5) = 0.559967 in place of 0.804885."""
    moved = (*PAIRS[:2], PAIRS[2] + 2, PAIRS[3] + 2)
    for loss, cost in (("apo_zero", 0.741662), ("apo_down", 0.559967)):
        assert float(dpo_loss(*moved, loss=loss, beta=0.5, weights=[1, 0])[0]) == pytest.approx(cost, abs=2e-6)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"loss": "dpo"}, "unknown loss"),
        ({"loss": "simpo"}, "lengths"),
        ({"loss": "orpo"}, "lengths"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing"),
        ({"loss": "hinge", "target_margin": 0.1}, "target_margin"),
        ({"loss": "hinge", "ties": "soft"}, "strict pairs"),
        ({"loss": "robust", "targets": [0.5, 0.5]}, "strict pairs"),
        ({"ties": "often"}, "unknown ties"),
        ({"ties": "rao_kupper", "tie_parameter": 1.0}, "theta"),
        ({"ties": "davidson", "tie_parameter": 0.0}, "nu"),
        ({"targets": [0.5, 1.5]}, "between 0 and 1"),
        ({"targets": [0.5]}, "pairs need"),
        ({"tied": [True]}, "pairs need"),
        ({"lengths": ([1], [2])}, "pairs need"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        dpo_loss(*PAIRS, **options)
