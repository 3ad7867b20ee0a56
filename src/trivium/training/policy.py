"""Groups of rollouts as the policy sees them: scoring under a decoder, advantages, the loss of a micro-batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trivium.config import RLConfig
from trivium.data.ragged import RaggedBatch, batch_groups
from trivium.feedback.rewards import overlong_penalty
from trivium.generation.rollouts import Rollout
from trivium.generation.sampling import SamplingSettings
from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder
from trivium.model.head import token_log_probs
from trivium.model.lora import WithoutAdapters
from trivium.objectives.advantages import group_advantages, groups_without_spread, returns_to_go, whiten
from trivium.objectives.kl import kl_estimate, kl_penalty
from trivium.objectives.policy import policy_loss, token_weights
from trivium.training import distributed
from trivium.training.shares import own_micro_batches
from trivium.training.statistics import UNSCALED, Scale

Group = list[Rollout]  # the rollouts of one prompt
PerToken = list[list[Tensor]]  # group, rollout: (own tokens,) float32 on the CPU


def own_length(rollout: Rollout) -> int:
    """Completion tokens that the policy chose: those of an environment are read, but nothing is learned from them.

    They are no targets of a batch, so that no loss, ratio, KL, value or mean knows of them: for all of these, what the
    environment said lies between two neighbouring tokens as the prompt lies before the first.
    """
    return sum(rollout.mask) if rollout.mask else rollout.length


def own_log_probs(rollout: Rollout) -> list[float]:
    """Those of the behaviour policy, of its own tokens."""
    return [value for value, own in zip(rollout.log_probs, rollout.sampled, strict=True) if own]


def ragged_groups(groups: Sequence[Group], share: bool, device: torch.device) -> RaggedBatch:
    """The groups laid flat, with the policy's own tokens as targets; a rank without any takes part with one token,
    whose weight in the loss is 0."""
    if not any(own_length(rollout) for group in groups for rollout in group):
        return batch_groups([([0], [[0]])], share).to(device)
    pairs = [(group[0].prompt_tokens, [rollout.completion_tokens for rollout in group]) for group in groups]
    masks = [[rollout.mask for rollout in group] for group in groups]
    return batch_groups(pairs, share, masks).to(device)


def completion_log_probs(
    decoder: Decoder | WithoutAdapters, batch: RaggedBatch, settings: SamplingSettings
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (N,) of the batch's targets, under the settings they were sampled with."""

    def head(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        rows = hidden[batch.sources]
        return token_log_probs(rows, weight, batch.targets, settings.temperature, settings.top_k, settings.top_p)

    return decoder(batch.tokens, batch.layout.positions, GridAttention(batch.layout), head)  # type: ignore[no-any-return]


def group_tokens(group: Group) -> int:
    return len(group[0].prompt_tokens) + sum(rollout.length for rollout in group)


@torch.no_grad()
def per_token(
    compute: Callable[[RaggedBatch], Tensor], groups: Sequence[Group], config: RLConfig, device: torch.device
) -> PerToken:
    """What ``compute`` gives for the policy's own tokens in a batch, for all groups, without gradients; ranks share the
    work and all get the whole."""
    own: list[list[Tensor]] = []
    for part in own_micro_batches([group_tokens(group) for group in groups], config.micro_batch_tokens):
        chosen = [groups[item] for item in part]
        flat = compute(ragged_groups(chosen, config.shared_prompts, device)).cpu()
        lengths = [own_length(rollout) for group in chosen for rollout in group]
        pieces = iter(flat.split(lengths) if any(lengths) else [flat[:0]] * len(lengths))
        own += [[next(pieces) for _ in group] for group in chosen]
    return distributed.gather_in_order(own, len(groups))


def score_groups(
    decoder: Decoder | WithoutAdapters,
    groups: Sequence[Group],
    settings: SamplingSettings,
    config: RLConfig,
    device: torch.device,
) -> PerToken:
    """Log-probabilities of every own token of the policy under ``decoder``."""
    return per_token(lambda batch: completion_log_probs(decoder, batch, settings)[0], groups, config, device)


def rewards_of(group: Group, config: RLConfig, scale: Scale = UNSCALED) -> list[float]:
    """The rewards the advantage is taken from: the sum of the parts, scaled, then what is taken off for long answers
    and for those without a stop token (penalties keep their size whatever the scale of the reward)."""
    centre, deviation = scale
    rewards = [(rollout.reward - centre) / deviation for rollout in group]
    if config.overlong == "penalty":
        limit, window = config.sampling.max_new_tokens, config.overlong_window
        rewards = [
            reward + overlong_penalty(own_length(rollout), limit, window)
            for reward, rollout in zip(rewards, group, strict=True)
        ]
    if config.missing_stop_penalty:
        rewards = [
            reward - config.missing_stop_penalty * (rollout.finish_reason == "length")
            for reward, rollout in zip(rewards, group, strict=True)
        ]
    return rewards


def spread(groups: Sequence[Group], config: RLConfig) -> list[bool]:
    """Whether the rewards of each group differ, judged on the full group."""
    rewards, numbers, valid = _flat(groups, config)
    return (~groups_without_spread(rewards, numbers, valid)).tolist() if groups else []


def _flat(groups: Sequence[Group], config: RLConfig, scale: Scale = UNSCALED) -> tuple[Tensor, Tensor, Tensor]:
    rewards = torch.tensor([value for group in groups for value in rewards_of(group, config, scale)])
    numbers = torch.tensor([number for number, group in enumerate(groups) for _ in group])
    valid = torch.tensor([rollout.status != "infra_error" for group in groups for rollout in group])
    return rewards, numbers, valid


def used_lengths(groups: Sequence[Group], config: RLConfig) -> list[int]:
    """Tokens of each rollout that carry loss: its own; none where there is no reward, or where truncated ones are
    masked."""
    return [
        0
        if rollout.status == "infra_error" or (config.overlong == "mask" and rollout.finish_reason == "length")
        else own_length(rollout)
        for group in groups
        for rollout in group
    ]


@dataclass(frozen=True)
class Signal:
    """What a step's rollouts are worth, flat over the N tokens that the policy chose in its S rollouts."""

    rewards: Tensor  # (S,): scaled, with their penalties
    groups: Tensor  # (S,): the number of each rollout's group
    valid: Tensor  # (S,) bool: judged, without an infrastructure error
    lengths: Tensor  # (S,): own tokens
    owner: Tensor  # (N,): the number of each token's rollout
    used: Tensor  # (N,) bool: the token carries loss
    cost: Tensor  # (N,): the KL in the reward, kl_coefficient times the detached k1; else 0

    @classmethod
    def of(cls, groups: Sequence[Group], reference: PerToken | None, config: RLConfig, scale: Scale) -> "Signal":
        rewards, numbers, valid = _flat(groups, config, scale)
        rollouts = [rollout for group in groups for rollout in group]
        lengths = torch.tensor([own_length(rollout) for rollout in rollouts])
        owner = torch.repeat_interleave(torch.arange(len(rollouts)), lengths)
        cost = torch.zeros(int(lengths.sum()))
        if config.kl == "reward":
            assert reference is not None
            sampled = torch.tensor([value for rollout in rollouts for value in own_log_probs(rollout)])
            cost = float(config.kl_coefficient or 0.0) * kl_estimate(sampled, flatten(reference), "k1")
        used = torch.tensor(used_lengths(groups, config))[owner] > 0
        return cls(rewards, numbers, valid, lengths, owner, used, cost)


def flatten(values: PerToken) -> Tensor:
    return torch.cat([piece for group in values for piece in group])


def flat_part(values: PerToken, part: Sequence[int]) -> Tensor:
    """(N,) the values of the groups ``part``; one zero where they have no tokens, as in ``ragged_groups``."""
    pieces = [piece for item in part for piece in values[item]]
    return torch.cat(pieces) if any(len(piece) for piece in pieces) else torch.zeros(1)


def per_own_token(values: Sequence[Sequence[float]], groups: Sequence[Group]) -> Tensor:
    """(N,) one value a rollout written out for each of its own tokens; one zero where there are none."""
    lengths = [own_length(rollout) for group in groups for rollout in group]
    if not any(lengths):
        return torch.zeros(1)
    each = torch.tensor([value for of_group in values for value in of_group])
    return torch.repeat_interleave(each, torch.tensor(lengths))


def by_rollout(flat: Tensor, groups: Sequence[Group]) -> PerToken:
    """The inverse of ``flatten``."""
    pieces = iter(flat.split([own_length(rollout) for group in groups for rollout in group]))
    return [[next(pieces) for _ in group] for group in groups]


def token_advantages(
    groups: Sequence[Group], reference: PerToken | None, config: RLConfig, scale: Scale = UNSCALED
) -> PerToken:
    """Advantages of every own token, over all groups of the step (every rank computes the same).

    With the KL in the reward, each token costs ``kl_coefficient`` times its detached k1. The group kinds subtract a
    response's sum from its reward; ``batch_zscore`` (REINFORCE++) keeps it per token: the return from a token on is the
    reward minus the KL still to come, normalised over all tokens of the batch. For ``gae`` see
    ``trivium.training.critic.critic_advantages``.
    """
    signal = Signal.of(groups, reference, config, scale)
    rewards, owner = signal.rewards, signal.owner
    if config.advantage == "batch_zscore":
        returns = torch.where(signal.used, rewards[owner], 0.0) - returns_to_go(signal.cost, owner)
        return by_rollout(whiten(returns, signal.used), groups)
    rewards = rewards - torch.zeros(len(rewards)).index_add_(0, owner, signal.cost)
    return by_rollout(group_advantages(rewards, signal.groups, str(config.advantage), signal.valid)[owner], groups)


class Update:
    """One minibatch of groups, ready to be cut: token weights come from all its sequences, so cuts do not matter."""

    def __init__(
        self,
        groups: Sequence[Group],
        advantages: PerToken,
        old: PerToken | None,
        reference: PerToken | None,
        config: RLConfig,
        settings: SamplingSettings,
        device: torch.device,
    ) -> None:
        self.config, self.settings, self.device = config, settings, device
        self.in_loss = config.kl in ("k2", "k3")
        lengths = torch.tensor(used_lengths(groups, config))
        weights = token_weights(lengths, str(config.aggregation), config.sampling.max_new_tokens)
        each = iter(weights.tolist())
        self.weights = [[next(each) for _ in group] for group in groups]
        # without spread and without a KL in the loss the gradient is exactly zero: no need to compute it; a critic
        # learns from every group
        every = self.in_loss or config.advantage == "gae"
        keep = [
            index
            for index in range(len(groups))
            if every or any(bool((piece != 0).any()) for piece in advantages[index])
        ]
        self.groups, self.weights = [groups[i] for i in keep], [self.weights[i] for i in keep]
        self.advantages = [advantages[i] for i in keep]
        self.old = None if old is None else [old[i] for i in keep]
        self.reference = None if reference is None else [reference[i] for i in keep]
        self.tokens = sum(group_tokens(group) for group in groups)
        pairs = zip(self.weights, self.groups, strict=True)
        self.total_weight = sum(w * own_length(r) for of, group in pairs for w, r in zip(of, group, strict=True))

    def micro_batches(self) -> list[list[int]]:
        return own_micro_batches([group_tokens(group) for group in self.groups], self.config.micro_batch_tokens)

    def loss(self, decoder: Decoder, part: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the groups ``part``: their share of the minibatch's sum."""
        config = self.config
        chosen = [self.groups[item] for item in part]
        batch = ragged_groups(chosen, config.shared_prompts, self.device)
        log_probs, _ = completion_log_probs(decoder, batch, self.settings)
        weights = per_own_token([self.weights[item] for item in part], chosen).to(self.device)  # (N,)
        # strictly on-policy, the behaviour policy is this very forward pass: the ratio is 1 and no second pass is
        # needed
        old = log_probs.detach() if self.old is None else self._flat(self.old, part)
        loss, metrics = policy_loss(
            log_probs,
            old,
            self._flat(self.advantages, part),
            batch.sequences,
            weights,
            ratio=str(config.ratio),
            clipping=str(config.clipping),
            clip_low=float(config.clip_low or 0.0),
            clip_high=float(config.clip_high or 0.0),
        )
        for name in ("ratio_mean", "clip_share"):  # means over what is trained on, whatever the weights add up to
            total = metrics.pop(name)
            if self.total_weight:  # else there is nothing to take a mean of, on any rank
                metrics[name] = total / self.total_weight
        if self.in_loss:
            assert self.reference is not None
            penalty = kl_penalty(log_probs, self._flat(self.reference, part), str(config.kl))
            loss = loss + float(config.kl_coefficient or 0.0) * torch.where(weights > 0, weights * penalty, 0.0).sum()
        if self.old is None:
            sampled = [value for group in chosen for rollout in group for value in own_log_probs(rollout)] or [0.0]
            gap = (log_probs.detach() - torch.tensor(sampled, device=self.device)).abs()
            metrics["max/sampler_difference"] = torch.where(weights > 0, gap, 0.0).amax()
        return loss, metrics

    def _flat(self, values: PerToken, part: Sequence[int]) -> Tensor:
        return flat_part(values, part).to(self.device)
