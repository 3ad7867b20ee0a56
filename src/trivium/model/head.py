"""Log-probabilities of target tokens from hidden states: the vocabulary head on loss tokens only, in chunks.

The logits of a chunk exist only while it is worked on; the backward pass computes them again, so the memory is that of
one chunk, whatever the batch. Softmax is taken in float32.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 1 << 24  # logits of one chunk: 64 MiB in float32


def filter_logits(logits: Tensor, top_k: int = 0, top_p: float = 1.0, keep: Tensor | None = None) -> Tensor:
    """Logits (N, V) with what top-k and then top-p leave out set to -inf.

    ``keep`` (N,): a token that always stays, so that the log-probability of a token sampled under older weights is
    finite. Top-p keeps the smallest set of likeliest tokens whose probability reaches ``top_p`` (Holtzman et al.,
    2020).
    """
    if top_k <= 0 and top_p >= 1.0:
        return logits
    drop = torch.zeros_like(logits, dtype=torch.bool)
    if 0 < top_k < logits.shape[-1]:
        drop |= logits < logits.topk(top_k, dim=-1).values[:, -1:]
    if top_p < 1.0:
        ordered, order = logits.masked_fill(drop, -torch.inf).sort(dim=-1, descending=True)
        probability = ordered.softmax(-1)
        before = probability.cumsum(-1) - probability
        drop |= torch.zeros_like(drop).scatter(1, order, before >= top_p)
    if keep is not None:
        drop = drop.scatter(1, keep[:, None], False)
    return logits.masked_fill(drop, -torch.inf)


def _chunk_logits(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, top_k: int, top_p: float
) -> Tensor:
    logits = F.linear(hidden, weight).float()
    if temperature != 1.0:
        logits /= temperature
    return filter_logits(logits, top_k, top_p, keep=targets)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, top_k: int, top_p: float
    ) -> tuple[Tensor, Tensor]:
        size = max(1, CHUNK_ELEMENTS // weight.shape[0])
        chosen, entropy = [], []
        single = None
        for rows, goal in zip(hidden.split(size), targets.split(size), strict=True):
            logits = _chunk_logits(rows, weight, goal, temperature, top_k, top_p)
            log_probs = logits.log_softmax(-1)
            chosen.append(log_probs.gather(1, goal[:, None]).squeeze(1))
            probability = log_probs.exp()
            if top_k > 0 or top_p < 1.0:
                # a filtered token has probability 0 and log-probability -inf: 0 * -inf is NaN, so mask with where
                log_probs = torch.where(probability > 0, log_probs, 0.0)
            entropy.append(-torch.einsum("nv,nv->n", probability, log_probs))
            single = probability
        ctx.settings = (temperature, top_k, top_p, size)
        kind = hidden.device.type
        ctx.autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        # one chunk is small by definition: its probabilities are kept, which saves the second product
        ctx.save_for_backward(hidden, weight, targets, single if len(chosen) == 1 else None)
        out, spread = torch.cat(chosen), torch.cat(entropy)
        ctx.mark_non_differentiable(spread)
        return out, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, single = ctx.saved_tensors
        temperature, top_k, top_p, size = ctx.settings
        hidden_gradient = torch.empty_like(hidden)
        learns = ctx.needs_input_grad[1]  # under adapters the head is frozen, and half the work can be spared
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32) if learns else None
        # the backward pass runs outside autocast: what it computes again must be what the forward pass computed
        autocast = torch.autocast(hidden.device.type, ctx.autocast or torch.bfloat16, enabled=ctx.autocast is not None)
        with autocast:
            for start in range(0, hidden.shape[0], size):
                part = slice(start, start + size)
                if single is None:
                    logits = _chunk_logits(hidden[part], weight, targets[part], temperature, top_k, top_p)
                    probability = logits.softmax(-1)
                else:
                    probability = single
                scale = gradient[part, None] / temperature
                delta = probability * -scale
                delta.scatter_add_(1, targets[part, None], scale.expand(-1, 1).contiguous())
                delta = delta.to(weight.dtype)
                hidden_gradient[part] = delta @ weight
                if weight_gradient is not None:
                    weight_gradient += (delta.t() @ hidden[part].to(weight.dtype)).float()
        found = None if weight_gradient is None else weight_gradient.to(weight.dtype)
        return hidden_gradient, found, None, None, None, None


def token_log_probs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution, both (N,) float32.

    ``hidden`` (N, hidden_size) are the states *before* the targets (N,), ``weight`` (vocabulary, hidden_size). The
    distribution is the one that was sampled from: logits / temperature, then top-k, then top-p. The entropy carries
    no gradient. ``temperature`` must be positive.
    """
    if hidden.shape[0] == 0:  # a fully masked micro-batch: zero, and still part of the graph
        nothing = hidden.float().sum() * 0 + weight.float().sum() * 0
        return nothing + hidden.new_zeros(0, dtype=torch.float32), hidden.new_zeros(0, dtype=torch.float32)
    log_probs, entropy = _TokenLogProbs.apply(hidden, weight, targets, temperature, top_k, top_p)  # type: ignore[misc]
    return log_probs, entropy
