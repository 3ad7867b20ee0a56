"""Losses and gradients against TRL's own code on the same log-probabilities (skipped without the extra ``peers``).

TRL computes its losses within methods of its trainers. They are called here on a trainer that was never set up, but for
the attributes that they read, and a model whose outputs are log-probabilities of tokens that were made up.
"""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from trivium.objectives.preference import dpo_loss, kto_loss, mismatched_kl

pytestmark = pytest.mark.slow  # loading TRL takes seconds
WIDTH, PROMPT, PAIRS = 9, 3, 6
LENGTHS = [[5, 1, 6, 2, 3, 4], [2, 6, 4, 1, 3, 5]]  # of chosen and of rejected answers, behind a prompt of 3 tokens
ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value
)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    pytest.importorskip("trl", minversion="1.16", reason="TRL is not installed")


def token_log_probs(seed: int, lengths: list[int]) -> Tensor:
    """(N, WIDTH - 1) for each token but the first, 0 for those of the prompt and of the filler."""
    drawn = -3 * torch.rand(len(lengths), WIDTH - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn * mask(lengths)[:, 1:]


def mask(lengths: list[int]) -> Tensor:
    """(N, WIDTH): 1 for the tokens of the answers."""
    rows = torch.zeros(len(lengths), WIDTH, dtype=torch.long)
    for row, length in zip(rows, lengths, strict=True):
        row[PROMPT : PROMPT + length] = 1
    return rows


class Stub(torch.nn.Module):
    """A model that gives each batch the log-probabilities it was made with, in turn."""

    is_gradient_checkpointing = False

    def __init__(self, *outputs: Tensor) -> None:
        super().__init__()
        self.outputs = list(outputs)

    def forward(self, **_: Any) -> SimpleNamespace:
        log_probs = self.outputs.pop(0)
        nothing = torch.zeros_like(log_probs)
        return SimpleNamespace(log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def trainer(kind: type, policy: Stub, reference: Stub, **attributes: Any) -> Any:
    made = object.__new__(kind)
    made.__dict__.update(
        model=policy,
        ref_model=reference,
        accelerator=ACCELERATOR,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        **attributes,
    )
    return made


def inputs(lengths: list[int]) -> dict[str, Tensor]:
    shape = len(lengths), WIDTH
    return {
        "input_ids": torch.zeros(shape, dtype=torch.long),
        "attention_mask": torch.ones(shape, dtype=torch.long),
        "completion_mask": mask(lengths),
    }


def agree(theirs: Tensor, ours: Tensor, leaf: Tensor) -> None:
    """The same loss and the same gradient of every token."""
    expected, found = (torch.autograd.grad(loss, leaf)[0] for loss in (theirs, ours))
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-9)
    assert float(expected.abs().max()) > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("loss", "options", "their_name", "their_options"),
    [
        ("sigmoid", {}, "sigmoid", {}),
        ("sigmoid", {"lengths": True}, "sigmoid_norm", {}),
        ("robust", {"label_smoothing": 0.2}, "robust", {"label_smoothing": 0.2}),
        ("ipo", {"lengths": True}, "ipo", {}),
        ("hinge", {}, "hinge", {}),
        ("apo_zero", {}, "apo_zero", {}),
        ("apo_down", {}, "apo_down", {}),
    ],
)
@pytest.mark.parametrize("beta", [0.1, 0.6])
def test_pairs(loss: str, options: dict[str, Any], their_name: str, their_options: dict[str, Any], beta: float) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    lengths = LENGTHS[0] + LENGTHS[1]
    leaf, fixed = token_log_probs(1, lengths).requires_grad_(), token_log_probs(2, lengths)
    peer = trainer(
        DPOTrainer,
        Stub(leaf),
        Stub(fixed),
        loss_types=[their_name],
        loss_weights=[1.0],
        beta=beta,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
        **{"label_smoothing": 0.0, **their_options},
    )
    theirs = peer._compute_loss(peer.model, inputs(lengths), False)
    told = {**options, "lengths": tuple(LENGTHS)} if options.get("lengths") else options
    ours, metrics = dpo_loss(*leaf.sum(1).split(PAIRS), *fixed.sum(1).split(PAIRS), loss=loss, beta=beta, **told)
    agree(theirs, ours, leaf)
    if not told.get("lengths"):  # theirs are of sums all the same
        logged = peer._metrics["train"]
        for name, value in {"chosen": "chosen_reward", "rejected": "rejected_reward", "margins": "margin"}.items():
            assert float(metrics[value]) == pytest.approx(logged[f"rewards/{name}"][0], abs=1e-9)
        assert float(metrics["accuracy"]) == pytest.approx(logged["rewards/accuracies"][0])


@pytest.mark.parametrize(
    ("loss", "options", "their_name", "their_options"),
    [
        ("simpo", {"target_margin": 0.7}, "simpo", {"simpo_gamma": 0.7}),
        ("sigmoid", {"label_smoothing": 0.15}, "sigmoid", {"label_smoothing": 0.15}),  # conservative
        ("hinge", {}, "hinge", {}),
        ("ipo", {"lengths": True}, "ipo", {}),
    ],
)
def test_pairs_without_a_reference(
    loss: str, options: dict[str, Any], their_name: str, their_options: dict[str, Any]
) -> None:
    from trl.experimental.cpo import CPOTrainer

    told = dict(options)
    leaf = token_log_probs(3, LENGTHS[0] + LENGTHS[1]).requires_grad_()
    chosen, rejected = leaf.sum(1).split(PAIRS)
    given = chosen, rejected
    if loss == "simpo" or told.get("lengths"):  # their forward pass averages before
        told["lengths"] = tuple(LENGTHS)
        given = chosen / torch.tensor(LENGTHS[0]), rejected / torch.tensor(LENGTHS[1])
    peer = object.__new__(CPOTrainer)
    peer.__dict__.update(accelerator=ACCELERATOR, alpha=0.0, beta=0.9, loss_type=their_name)
    peer.__dict__.update({"label_smoothing": 0.0, "simpo_gamma": 0.0, **their_options})
    costs, of_chosen, of_rejected = peer.cpo_loss(*given)
    ours, metrics = dpo_loss(chosen, rejected, None, None, loss=loss, beta=0.9, **told)
    agree(costs.mean(), ours, leaf)
    assert float(metrics["chosen_reward"]) == pytest.approx(float(of_chosen.mean()), abs=1e-9)
    assert float(metrics["rejected_reward"]) == pytest.approx(float(of_rejected.mean()), abs=1e-9)


def test_odds() -> None:
    """TRL takes them in float32, and gives what is to be subtracted from the loss of imitation."""
    from trl.experimental.orpo import ORPOTrainer

    leaf = token_log_probs(4, LENGTHS[0] + LENGTHS[1]).requires_grad_()
    chosen, rejected = leaf.sum(1).split(PAIRS)
    peer = object.__new__(ORPOTrainer)
    peer.__dict__.update(accelerator=ACCELERATOR, beta=0.3)
    costs, *_ = peer.odds_ratio_loss(chosen / torch.tensor(LENGTHS[0]), rejected / torch.tensor(LENGTHS[1]))
    ours, metrics = dpo_loss(chosen, rejected, None, None, loss="orpo", beta=0.3, lengths=(LENGTHS[0], LENGTHS[1]))
    theirs = -costs.mean()
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-6)
    expected, found = (torch.autograd.grad(loss, leaf)[0] for loss in (theirs, ours))
    torch.testing.assert_close(found, expected.to(found), rtol=1e-5, atol=1e-6)
    assert float(metrics["chosen_reward"]) == pytest.approx(
        0.3 * float((chosen.detach() / torch.tensor(LENGTHS[0])).mean())
    )


@pytest.mark.parametrize("shift", [-1.0, 1.5])  # of the mismatched log ratios: the baseline is 0, or above
def test_answers_that_are_good_or_bad(shift: float) -> None:
    from trl.trainer.kto_trainer import KTOTrainer

    lengths, desirable = LENGTHS[0], [True, False, False, True, False, True]
    leaf, fixed = token_log_probs(5, lengths).requires_grad_(), token_log_probs(6, lengths)
    other_lengths = lengths[1:] + lengths[:1]
    mismatched = token_log_probs(7, other_lengths)
    of_reference = mismatched - (shift * mask(other_lengths)[:, 1:])
    peer = trainer(
        KTOTrainer,
        Stub(mismatched, leaf),
        Stub(of_reference, fixed),
        beta=0.4,
        calculate_KL=True,
        loss_type="kto",
        desirable_weight=1.2,
        undesirable_weight=0.7,
    )
    batch = inputs(lengths) | {"label": torch.tensor(desirable)}
    batch |= {f"KL_{name}": value for name, value in inputs(other_lengths).items()}
    theirs = peer._compute_loss(peer.model, batch, False)
    baseline = mismatched_kl((mismatched - of_reference).sum(1))
    ours, metrics = kto_loss(
        leaf.sum(1),
        fixed.sum(1),
        desirable,
        beta=0.4,
        baseline=baseline,
        desirable_weight=1.2,
        undesirable_weight=0.7,
    )
    agree(theirs, ours, leaf)
    logged = peer._metrics["train"]
    assert float(metrics["baseline"]) == pytest.approx(logged["kl"][0], abs=1e-9)
    assert (float(baseline) > 0) == (shift > 0)
    for name, kind in (("chosen", "desirable"), ("rejected", "undesirable")):
        mean = float(metrics[f"{kind}_reward"]) / float(metrics[f"{kind}_share"])
        assert mean == pytest.approx(logged[f"rewards/{name}"][0], abs=1e-9)
