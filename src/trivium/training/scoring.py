"""Log-probabilities of token sequences under a decoder, for imitation and for held-out text."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trivium.data.ragged import batch_sequences
from trivium.data.records import TokenSequence
from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder
from trivium.model.head import token_log_probs
from trivium.training import distributed
from trivium.training.shares import own_micro_batches


def log_probs_of(decoder: Decoder, sequences: Sequence[TokenSequence], device: torch.device) -> Tensor:
    """Log-probabilities (N,) of the loss tokens of ``sequences``, in order, in one ragged forward pass."""
    # an empty share still takes part in the forward pass: one token that carries no loss
    batch = batch_sequences(sequences or [TokenSequence((0,), (False,))]).to(device)
    log_probs, _ = decoder(
        batch.tokens,
        batch.layout.positions,
        GridAttention(batch.layout),
        lambda hidden, weight: token_log_probs(hidden[batch.sources], weight, batch.targets),
    )
    return log_probs  # type: ignore[no-any-return]


def total_nats(decoder: Decoder, sequences: Sequence[TokenSequence], budget: int, device: torch.device) -> float:
    """Negative log-likelihood of all loss tokens of ``sequences``, in nats, summed over the ranks."""
    total = torch.zeros((), dtype=torch.float64, device=device)
    for part in own_micro_batches([len(sequence.tokens) for sequence in sequences], budget):
        total -= log_probs_of(decoder, [sequences[item] for item in part], device).double().sum()
    return float(distributed.sum_over_ranks(total))
