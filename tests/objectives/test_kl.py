import math

import pytest
import torch

from trivium.objectives.kl import kl_estimate, kl_penalty

POLICY = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
REFERENCE = torch.tensor([0.25, 0.4, 0.05, 0.3], dtype=torch.float64)


def test_values() -> None:
    """Policy 0.5, reference 0.25: d = log reference - log policy = -ln 2."""
    policy, reference = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    assert kl_estimate(policy, reference, "k1").item() == pytest.approx(math.log(2))
    assert kl_estimate(policy, reference, "k2").item() == pytest.approx(math.log(2) ** 2 / 2)
    assert kl_estimate(policy, reference, "k3").item() == pytest.approx(0.5 + math.log(2) - 1)


def test_k1_and_k3_are_unbiased_and_k3_is_never_negative() -> None:
    true = (POLICY * (POLICY / REFERENCE).log()).sum().item()
    for estimator in ("k1", "k3"):
        each = kl_estimate(POLICY.log(), REFERENCE.log(), estimator)
        assert (POLICY * each).sum().item() == pytest.approx(true)
    assert (kl_estimate(POLICY.log(), REFERENCE.log(), "k3") >= 0).all()
    assert kl_estimate(POLICY.log(), POLICY.log(), "k3").tolist() == [0.0] * 4


def expected_gradient(estimator: str, plain: bool = False) -> torch.Tensor:
    """The mean over tokens drawn from the policy of the gradient of the loss, by the logits of a categorical."""
    logits = POLICY.log().requires_grad_()
    log_probs = logits.log_softmax(-1)
    each = (kl_estimate if plain else kl_penalty)(log_probs, REFERENCE.log(), estimator)
    (POLICY * each).sum().backward()  # the drawing itself has no gradient: POLICY is a constant here
    assert logits.grad is not None
    return logits.grad


def true_gradient() -> torch.Tensor:
    logits = POLICY.log().requires_grad_()
    log_probs = logits.log_softmax(-1)
    (log_probs.exp() * (log_probs - REFERENCE.log())).sum().backward()
    assert logits.grad is not None
    return logits.grad


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_gradient_of_the_penalty_is_that_of_the_kl(estimator: str) -> None:
    torch.testing.assert_close(expected_gradient(estimator), true_gradient())


def test_plain_differentiation_of_k3_is_not() -> None:
    """The trap this avoids: it gives the gradient of the KL in the other direction."""
    assert (expected_gradient("k3", plain=True) - true_gradient()).abs().max() > 0.05


def test_k3_keeps_its_value() -> None:
    log_probs, reference = POLICY.log(), REFERENCE.log()
    torch.testing.assert_close(kl_penalty(log_probs, reference, "k3"), kl_estimate(log_probs, reference, "k3"))


def test_the_reference_gets_no_gradient() -> None:
    reference = REFERENCE.log().requires_grad_()
    kl_penalty(POLICY.log().requires_grad_(), reference, "k3").sum().backward()
    assert reference.grad is None


def test_k1_is_refused_in_a_loss_and_unknown_names_everywhere() -> None:
    with pytest.raises(ValueError, match="reward"):
        kl_penalty(POLICY.log(), REFERENCE.log(), "k1")
    for function in (kl_penalty, kl_estimate):
        with pytest.raises(ValueError, match="k1, k2 or k3"):
            function(POLICY.log(), REFERENCE.log(), "k4")
