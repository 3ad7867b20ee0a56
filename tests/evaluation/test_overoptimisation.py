"""The fits of over-optimisation: what was put in comes out, and what the data cannot tell is not told."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.evaluation.overoptimisation import FORMS, compare, fit, peak_of, value
from trivium.streams import generator

KL = [0.2, 0.6, 1.2, 2.0, 3.0, 5.0, 8.0, 12.0, 17.0, 25.0]
D = np.sqrt(KL).tolist()


def noisy(form: str, alpha: float, beta: float, noise: float, draws: int = 500) -> tuple[list[float], np.ndarray]:
    """A measured curve, and what resamples of its prompts would give."""
    exact = np.array(value(form, alpha, beta, D))
    errors = generator(0, "test/overoptimisation", form).normal(size=(draws + 1, len(KL))) * noise
    return (exact + errors[0]).tolist(), exact + errors[0] + errors[1:]


@pytest.mark.parametrize("form", FORMS)
@given(alpha=st.floats(-3, 3), beta=st.floats(-2, 2))
def test_exact_points_give_their_parameters_back(form: str, alpha: float, beta: float) -> None:
    found = fit(KL, value(form, alpha, beta, D), form)
    assert found is not None
    assert (found.alpha, found.beta) == (pytest.approx(alpha, abs=1e-8), pytest.approx(beta, abs=1e-8))
    if max(abs(alpha), abs(beta)) > 1e-3:
        assert found.r2 == pytest.approx(1)


@pytest.mark.parametrize("form", FORMS)
@given(alpha=st.floats(0.1, 3), beta=st.floats(0.2, 2))
def test_the_peak_is_the_highest_point(form: str, alpha: float, beta: float) -> None:
    peak = peak_of(form, alpha, beta)
    assert peak is not None
    before, at, after = value(form, alpha, beta, [peak * 0.99, peak, peak * 1.01])
    assert at >= before and at >= after


def test_forms_without_a_peak() -> None:
    assert peak_of("best_of_n", 1.0, 0.0) is None and peak_of("rl", 1.0, -0.1) is None
    assert peak_of("rl", 1.0, 1e-4) is None  # beyond any KL
    assert peak_of("best_of_n", -1.0, 1.0) == 0.0  # falls from the start
    with pytest.raises(ValueError, match="form"):
        value("sft", 1.0, 1.0, [1.0])


def test_few_or_useless_points_give_no_fit() -> None:
    assert fit([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 1.5, 1.6], "rl") is None
    assert fit([1.0] * 9, [1.0] * 9, "rl") is None
    assert fit([1.0, 2.0, 3.0, float("nan"), 4.0], [1.0, 2.0, float("inf"), 1.0, 1.0], "rl") is None
    assert compare([0.0, 1.0], [0.0, 1.0]) is None
    with pytest.raises(ValueError, match="its KL"):
        fit([1.0, 2.0], [1.0], "rl")


@pytest.mark.parametrize(("form", "alpha", "beta"), [("best_of_n", 2.0, 0.3), ("rl", 2.0, 1.2)])
def test_a_clear_curve_is_told_by_its_form_and_its_fall(form: str, alpha: float, beta: float) -> None:
    gain, resampled = noisy(form, alpha, beta, 0.02)
    found = compare(KL, gain, resampled=resampled)
    assert found is not None and found["better"] == form and found["falls"] is True
    own = found[form]
    for name, true in (("alpha", alpha), ("beta", beta)):
        half = (own[name]["high"] - own[name]["low"]) / 2
        assert half < 0.1 and abs(own[name]["estimate"] - true) < 2 * half
    peak = peak_of(form, alpha, beta)
    assert peak is not None and own["peak_kl"]["estimate"] == pytest.approx(peak**2, rel=0.05)
    assert own["peak_inside"] and own["r2"] > 0.99
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_rise_is_no_fall() -> None:
    gain, resampled = noisy("best_of_n", 2.0, 0.05, 0.02)  # the peak lies at a KL of 400
    found = compare(KL, gain, resampled=resampled)
    assert found is not None and found["falls"] is False and not found["best_of_n"]["peak_inside"]


def test_a_straight_rise_has_no_peak_and_an_open_bound() -> None:
    gain, resampled = noisy("best_of_n", 2.0, 0.0, 0.02)
    found = compare(KL, gain, resampled=resampled)
    assert found is not None and found["falls"] is False
    assert found["best_of_n"]["peak_kl"]["high"] is None


def test_noise_cannot_tell() -> None:
    told = 0
    for seed in range(100):
        errors = generator(seed, "test/overoptimisation/noise").normal(size=(501, len(KL)))
        found = compare(KL, errors[0].tolist(), resampled=errors[0] + errors[1:])
        assert found is not None
        told += found["falls"] is not None
    assert told <= 10  # a 95% interval is wrong in one case of twenty


def test_the_points_are_resampled_where_there_are_no_prompts() -> None:
    gain, _ = noisy("rl", 2.0, 1.2, 0.05)
    found = compare([0.0, *KL], [0.0, *gain])
    assert found is not None and found["resampled"] == "points" and found["points"] == len(KL)
    assert found["rl"]["alpha"]["low"] < 2.0 < found["rl"]["alpha"]["high"]
    assert compare([0.0, *KL], [0.0, *gain]) == found


def test_a_fall_from_the_start_is_a_fall() -> None:
    found = compare(KL, [-kl for kl in KL])
    assert (
        found is not None
        and found["falls"] is True
        and found["best_of_n"]["peak_kl"]["estimate"] == pytest.approx(0, abs=1e-9)
    )
