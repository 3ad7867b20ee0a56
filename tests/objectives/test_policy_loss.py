"""policy_loss against numbers worked out by hand: four tokens, two sequences."""

import math

import pytest
import torch
from torch import Tensor

from trivium.objectives.imitation import imitation_loss
from trivium.objectives.policy import policy_loss, token_weights

RATIOS = torch.tensor([1.5, 0.5, 1.0, 2.0])
ADVANTAGES = torch.tensor([1.0, -2.0, 3.0, -1.0])
SEQUENCES = torch.tensor([0, 0, 1, 1])
WEIGHTS = torch.tensor([0.1, 0.2, 0.3, 0.4])
OLD = torch.tensor([-1.0, -2.0, -0.5, -3.0])


def loss(**choices: object) -> tuple[float, list[float], dict[str, Tensor]]:
    """Loss, gradient and metrics at the ratios above; clip_low 0.2 and clip_high 0.28."""
    log_probs = (OLD + RATIOS.log()).requires_grad_()
    given = {"clip_low": 0.2, "clip_high": 0.28, **choices}
    value, metrics = policy_loss(log_probs, OLD, ADVANTAGES, SEQUENCES, WEIGHTS, **given)  # type: ignore[arg-type]
    value.backward()
    assert log_probs.grad is not None
    return value.item(), log_probs.grad.tolist(), metrics


def test_clipped_per_token() -> None:
    """min(wA, clip(w)A): 1.5 is cut to 1.28; 0.5 to 0.8, which is worse at A < 0; 2.0 at A < 0 is not cut."""
    value, gradient, metrics = loss()
    assert value == pytest.approx(-(0.1 * 1.28 + 0.2 * 0.8 * -2 + 0.3 * 3 + 0.4 * -2))
    # no gradient through what is clipped; elsewhere d(-w A)/d log_prob = -w A
    assert gradient == pytest.approx([0.0, 0.0, -0.9, 0.8])
    assert metrics["clip_share"].item() == pytest.approx(0.1 + 0.2)
    assert metrics["ratio_mean"].item() == pytest.approx(0.15 + 0.1 + 0.3 + 0.8)
    assert metrics["max/ratio_deviation"].item() == pytest.approx(1.0)


def test_higher_is_the_same_with_another_upper_bound() -> None:
    assert loss(clipping="higher")[:2] == loss(clipping="symmetric")[:2]
    assert loss(clip_high=1.0)[0] == pytest.approx(-(0.15 + 0.2 * 0.8 * -2 + 0.9 - 0.8))


def test_without_clipping() -> None:
    value, gradient, metrics = loss(clipping="none")
    assert value == pytest.approx(-(0.15 + 0.2 * 0.5 * -2 + 0.9 - 0.8))
    assert gradient == pytest.approx([-0.15, 0.2, -0.9, 0.8])
    assert metrics["clip_share"].item() == 0.0


def test_capped_weight_keeps_the_gradient_of_every_token() -> None:
    """CISPO: -detach(min(w, 1.28)) A log_prob."""
    value, gradient, metrics = loss(clipping="capped_weight")
    log_probs = (OLD + RATIOS.log()).tolist()
    capped = [1.28, 0.5, 1.0, 1.28]
    each = zip(WEIGHTS.tolist(), capped, ADVANTAGES.tolist(), log_probs, strict=True)
    assert value == pytest.approx(-sum(w * c * a * lp for w, c, a, lp in each))
    assert gradient == pytest.approx([-0.1 * 1.28, 0.2 * 0.5 * 2, -0.9, 0.4 * 1.28])
    assert metrics["clip_share"].item() == pytest.approx(0.5)


def test_sequence_ratio_is_the_geometric_mean() -> None:
    """sqrt(1.5 * 0.5) and sqrt(1 * 2); its gradient reaches every token of the sequence alike."""
    value, gradient, _ = loss(ratio="sequence", clipping="none")
    one, two = math.sqrt(0.75), math.sqrt(2.0)
    first, second = 0.1 * one * 1 + 0.2 * one * -2, 0.3 * two * 3 + 0.4 * two * -1
    assert value == pytest.approx(-(first + second))
    assert gradient == pytest.approx([-first / 2, -first / 2, -second / 2, -second / 2])


def test_sequence_ratio_clipped() -> None:
    value, gradient, metrics = loss(ratio="sequence", clip_low=0.2, clip_high=0.2)
    one = math.sqrt(0.75)  # inside the bounds; sqrt(2) is cut to 1.2 where A > 0 and stays where A < 0
    assert value == pytest.approx(-(0.1 * one - 0.4 * one + 0.3 * 1.2 * 3 - 0.4 * math.sqrt(2)))
    assert metrics["clip_share"].item() == pytest.approx(0.3)
    assert gradient[2] == gradient[3] == pytest.approx(0.4 * math.sqrt(2) / 2)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("clipping", ["symmetric", "higher", "capped_weight", "none"])
def test_a_masked_token_is_as_if_it_were_not_there(ratio: str, clipping: str) -> None:
    """Whatever stands in it: NaN and infinities give a finite loss and a zero gradient."""
    bad = torch.tensor([torch.nan, -torch.inf, torch.inf])
    log_probs = torch.cat([OLD + RATIOS.log(), bad]).requires_grad_()
    old, advantages = torch.cat([OLD, torch.zeros(3)]), torch.cat([ADVANTAGES, bad])
    sequences, weights = torch.tensor([0, 0, 1, 1, 1, 2, 2]), torch.cat([WEIGHTS, torch.zeros(3)])
    value, metrics = policy_loss(log_probs, old, advantages, sequences, weights, ratio=ratio, clipping=clipping)
    value.backward()
    clean = loss(ratio=ratio, clipping=clipping, clip_high=0.2)
    assert value.item() == pytest.approx(clean[0])
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([*clean[1], 0.0, 0.0, 0.0])
    assert {name: part.item() for name, part in metrics.items()} == pytest.approx(
        {name: part.item() for name, part in clean[2].items()}
    )


def test_a_fully_masked_micro_batch_gives_zero() -> None:
    log_probs = torch.tensor([torch.nan, 1.0]).requires_grad_()
    value, _ = policy_loss(log_probs, torch.zeros(2), torch.ones(2), torch.tensor([0, 1]), torch.zeros(2))
    value.backward()
    assert value.item() == 0.0 and log_probs.grad is not None and log_probs.grad.tolist() == [0.0, 0.0]
    empty = torch.zeros(0)
    assert policy_loss(empty, empty, empty, empty.long(), empty, ratio="sequence")[0].item() == 0.0


@pytest.mark.parametrize("choice", [{"ratio": "word"}, {"clipping": "soft"}])
def test_an_unknown_choice_is_refused(choice: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="unknown"):
        loss(**choice)


LENGTHS = torch.tensor([2, 0, 4])  # the second is masked


def test_token_weights() -> None:
    assert token_weights(LENGTHS, "token", 8).tolist() == pytest.approx([1 / 6, 0.0, 1 / 6])
    assert token_weights(LENGTHS, "sequence", 8).tolist() == pytest.approx([1 / 4, 0.0, 1 / 8])
    assert token_weights(LENGTHS, "constant", 8).tolist() == pytest.approx([1 / 16, 0.0, 1 / 16])
    with pytest.raises(ValueError, match="constant"):
        token_weights(LENGTHS, "mean", 8)


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
def test_all_masked_has_no_weight(aggregation: str) -> None:
    assert token_weights(torch.tensor([0, 0]), aggregation, 8).tolist() == [0.0, 0.0]


def test_imitation_adds_up_over_micro_batches() -> None:
    log_probs = torch.tensor([-1.0, -2.0, -3.0, -6.0])
    whole = imitation_loss(log_probs, 4)[0].item()
    assert whole == 3.0
    assert imitation_loss(log_probs[:1], 4)[0].item() + imitation_loss(log_probs[1:], 4)[0].item() == whole
    assert imitation_loss(torch.zeros(0), 0)[0].item() == 0.0
