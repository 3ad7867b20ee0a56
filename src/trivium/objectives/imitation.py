"""Imitation: the negative log-likelihood that pre-training and supervised fine-tuning minimise."""

from torch import Tensor


def imitation_loss(log_probs: Tensor, total: int) -> tuple[Tensor, dict[str, Tensor]]:
    """-sum(log_probs) / ``total``: this micro-batch's part of the mean over all loss tokens of the update.

    ``log_probs`` (N,) of the loss tokens of one micro-batch, ``total``: loss tokens of the whole batch, over all
    micro-batches and ranks. With two micro-batches of 1 and 3 tokens the total is 4 for both, and the gradients add up
    to those of the four tokens together; a mean of the means would count the lone token three times.
    """
    return -log_probs.sum() / max(total, 1), {}
