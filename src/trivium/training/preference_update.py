"""The loss of one update on preferences: log-probabilities of answers, the reference's, and what they cost together."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from trivium.config import DPOConfig
from trivium.data.ragged import batch_groups
from trivium.generation.sampling import SamplingSettings
from trivium.model.decoder import Decoder
from trivium.objectives import ranking
from trivium.objectives.preference import dpo_loss, kto_loss, listwise_loss, mismatched_kl
from trivium.training import distributed
from trivium.training.policy import completion_log_probs
from trivium.training.preference import LogProbs, PairedTask
from trivium.training.shares import own_micro_batches

AS_TRAINED = SamplingSettings(temperature=1.0)
Metrics = dict[str, Tensor]


def answer_log_probs(decoder: Decoder, tasks: Sequence[PairedTask], device: torch.device, share: bool = True) -> Tensor:
    """Summed log-probabilities (A,) float64 with gradient of all answers of ``tasks``, in order.

    A prompt stands in the batch once for all its answers (``share``), and each answer once, however many pairs it is
    in. Without tasks, as on a rank whose share is empty, a token is read whose log-probability is in no sum, since
    every rank takes part in every forward pass.
    """
    groups, rows, number = [], [], 0
    for task in tasks:
        groups.append((task.prompt, [answer for answer in task.answers if answer]))
        rows += [number + place for place, answer in enumerate(task.answers) if answer]
        number += len(task.answers)  # an empty answer that was cut off has no token: its sum is 0
    batch = batch_groups(groups or [([0], [[0]])], share).to(device)
    log_probs, _ = completion_log_probs(decoder, batch, AS_TRAINED)
    # sums of hundreds of tokens, of which small differences count
    of = torch.tensor(rows or [0], device=device)[batch.sequences]
    sums = torch.zeros(max(number, 1), dtype=torch.float64, device=device).index_add(0, of, log_probs.double())
    return sums[:number]


@torch.no_grad()
def fixed_log_probs(
    decoder: Decoder, tasks: Sequence[PairedTask], budget: int, device: torch.device
) -> list[list[float]]:
    """``answer_log_probs`` of each task without gradient, at most ``budget`` tokens at a time: the reference's, which
    stay what they are. Ranks share the work and all get the whole."""
    own: list[list[float]] = []
    for part in own_micro_batches([task.size for task in tasks], budget):
        chosen = [tasks[item] for item in part]
        flat = answer_log_probs(decoder, chosen, device).tolist()
        ends = list(accumulate(len(task.answers) for task in chosen))
        own += [flat[end - len(task.answers) : end] for task, end in zip(chosen, ends, strict=True)]
    return distributed.gather_in_order(own, len(tasks))


@dataclass(frozen=True)
class _Read:
    """The answers of a micro-batch, A of them, laid flat: summed log-probabilities under policy and reference, lengths
    in tokens, and where each task's answers start."""

    sums: Tensor
    reference: Tensor | None
    lengths: Tensor
    starts: list[int]


class Update:
    """The tasks of one update with their ``reference`` log-probabilities: losses of its micro-batches are sums over
    the weight of all of them, so cuts do not matter.

    ``elsewhere``: the reference's log-probabilities of the answers under prompts that are not theirs, for kto. The
    policy's are read once, in a pass of their own before the first micro-batch, so that one baseline holds for all.
    """

    def __init__(
        self,
        tasks: Sequence[PairedTask],
        reference: Sequence[LogProbs],
        config: DPOConfig,
        device: torch.device,
        elsewhere: Sequence[LogProbs] = (),
    ) -> None:
        self.tasks, self.reference, self.config, self.device = tasks, reference, config, device
        self.elsewhere = elsewhere
        self.total = math.fsum(task.weight for task in tasks)
        self.tokens = sum(task.size for task in tasks)
        self.imitated = math.fsum(w * len(task.answers[n]) for task in tasks for n, w in task.best.items())
        self.of_kind = {
            kind: math.fsum(w for task in tasks for (_, good), w in task.labels.items() if good == kind)
            for kind in (True, False)
        }
        self.baseline: Tensor | None = None

    def micro_batches(self) -> list[list[int]]:
        return own_micro_batches([task.size for task in self.tasks], self.config.micro_batch_tokens)

    def loss(self, decoder: Decoder, part: Sequence[int], share: bool = True) -> tuple[Tensor, Metrics]:
        """The share of the tasks ``part``; all ranks must call, since the first call reads the baseline of kto.

        Metrics of all losses, means by the weight of what was said: ``accuracy``, ``margin``, ``chosen_reward``,
        ``rejected_reward``, ``chosen_log_prob``, ``rejected_log_prob``, and ``chosen_length`` and ``rejected_length``
        in tokens (kto: of good and of bad answers; ``baseline`` beside). With imitation ``nll``, nats a token.
        """
        if self.config.loss == "kto" and self.baseline is None:
            self.baseline = self._baseline(decoder)
        tasks = [self.tasks[item] for item in part]
        read = self._read(decoder, tasks, part, share)
        compute = {"kto": self._kto, "plackett_luce": self._lists}.get(self.config.loss, self._pairs)
        loss, metrics = compute(tasks, read)
        if self.config.imitation:
            places, weights = self._flat(
                ((start + n,), w) for task, start in _with(tasks, read) for n, w in task.best.items()
            )
            imitated = -(weights * read.sums[places[:, 0]]).sum() / (self.imitated or 1.0)
            loss = loss + self.config.imitation * imitated
            metrics["nll"] = imitated.detach()
        return loss, metrics

    def _read(self, decoder: Decoder, tasks: Sequence[PairedTask], part: Sequence[int], share: bool) -> _Read:
        sums = answer_log_probs(decoder, tasks, self.device, share)
        reference = None
        if self.config.compared:
            fixed = [value for item in part for value in self.reference[item]]
            reference = torch.tensor(fixed, dtype=sums.dtype, device=self.device)
        lengths = [len(answer) for task in tasks for answer in task.answers]
        starts = [0, *accumulate(len(task.answers) for task in tasks)]
        return _Read(sums, reference, torch.tensor(lengths, dtype=sums.dtype, device=self.device), starts)

    def _flat(self, entries: Iterable[tuple[tuple[int, ...], float]]) -> tuple[Tensor, Tensor]:
        """Places among the answers (N, width) and weights (N,) float64."""
        found = list(entries)
        width = len(found[0][0]) if found else 2
        places = torch.tensor([at for at, _ in found], dtype=torch.long, device=self.device).reshape(-1, width)
        return places, torch.tensor([weight for _, weight in found], dtype=torch.float64, device=self.device)

    # ---- the families of losses -------------------------------------------------------------------------------------

    def _pairs(self, tasks: Sequence[PairedTask], read: _Read) -> tuple[Tensor, Metrics]:
        config = self.config
        flat: list[tuple[tuple[int, ...], float]] = []
        tied: list[bool] = []
        targets: list[float] = []
        for task, start in _with(tasks, read):
            said = [((i, j), w, False, math.nan) for (i, j), w in task.pairs.items()]
            said += [((i, j), w, True, math.nan) for (i, j), w in task.ties.items()]
            said += [((i, j), w, False, p) for (i, j, p), w in task.soft.items()]
            flat += [((start + i, start + j), w) for (i, j), w, _, _ in said]
            tied += [level or p == 0.5 for _, _, level, p in said]
            targets += [p for _, _, _, p in said]
        places, weights = self._flat(flat)
        chosen, rejected = places[:, 0], places[:, 1]
        soft = not all(map(math.isnan, targets))
        loss, metrics = dpo_loss(
            read.sums[chosen],
            read.sums[rejected],
            None if read.reference is None else read.reference[chosen],
            None if read.reference is None else read.reference[rejected],
            loss=config.loss,
            beta=config.beta,
            label_smoothing=config.label_smoothing,
            tied=tied if any(tied) else None,
            ties=config.ties,
            tie_parameter=config.tie_parameter,
            targets=torch.tensor(targets, dtype=torch.float64, device=self.device) if soft else None,
            lengths=(read.lengths[chosen], read.lengths[rejected]) if config.normalised else None,
            target_margin=config.target_margin if config.loss == "simpo" else 0.0,
            weights=weights,
            total=self.total,
        )
        return loss, metrics | self._sides(read, chosen, rejected, weights / self.total, tied)

    def _lists(self, tasks: Sequence[PairedTask], read: _Read) -> tuple[Tensor, Metrics]:
        lists = [(start, entries) for task, start in _with(tasks, read) for entries in task.lists]
        rows = torch.tensor([start + n for start, of in lists for n, _ in of], dtype=torch.long, device=self.device)
        tiers = [tier for _, of in lists for _, tier in of]
        numbers = [number for number, (_, of) in enumerate(lists) for _ in of]
        values, reference = read.sums, read.reference
        if self.config.normalised:
            values = values / read.lengths.clamp(min=1)
            reference = None if reference is None else reference / read.lengths.clamp(min=1)
        ties = self.config.ties
        loss, metrics = listwise_loss(
            values[rows],
            None if reference is None else reference[rows],
            tiers,
            numbers,
            beta=self.config.beta,
            ties=ties,
            total=self.total,
        )
        pairs = ranking.weighted_pairs(values[rows].detach(), tiers, numbers, ties=ties, total=self.total)
        better, worse = rows[pairs.better], rows[pairs.worse]
        return loss, metrics | self._sides(read, better, worse, pairs.shares, pairs.tied.tolist())

    def _kto(self, tasks: Sequence[PairedTask], read: _Read) -> tuple[Tensor, Metrics]:
        config, baseline = self.config, self.baseline
        assert baseline is not None
        labels = [(start + n, good, w) for task, start in _with(tasks, read) for (n, good), w in task.labels.items()]
        places, weights = self._flat(((n,), w) for n, _, w in labels)
        rows = places[:, 0]
        good = torch.tensor([label for _, label, _ in labels], dtype=torch.bool, device=self.device)
        loss, told = kto_loss(
            read.sums[rows],
            None if read.reference is None else read.reference[rows],
            good,
            beta=config.beta,
            baseline=baseline,
            desirable_weight=config.desirable_weight,
            undesirable_weight=config.undesirable_weight,
            weights=weights,
            total=self.total,
        )
        metrics = {"accuracy": told["accuracy"], "baseline": told["baseline"]}
        with torch.no_grad():
            for kind, name, side in ((True, "desirable", "chosen"), (False, "undesirable", "rejected")):
                of_kind = self.of_kind[kind]
                if not of_kind:
                    continue
                own = torch.where(good == kind, weights, 0.0) / of_kind
                metrics[f"{side}_reward"] = told[f"{name}_reward"] * (self.total / of_kind)
                metrics[f"{side}_log_prob"] = (own * read.sums[rows]).sum()
                metrics[f"{side}_length"] = (own * read.lengths[rows]).sum()
            if all(self.of_kind.values()):
                metrics["margin"] = metrics["chosen_reward"] - metrics["rejected_reward"]
        return loss, metrics

    def _baseline(self, decoder: Decoder) -> Tensor:
        """How far policy and reference are apart on answers to other prompts, in nats (all ranks must call)."""
        known = [number for number, task in enumerate(self.tasks) if task.other and task.answers]
        if self.config.kto_baseline == "none" or not known:
            return torch.zeros((), dtype=torch.float64, device=self.device)
        mismatched = [self.tasks[number].mismatched() for number in known]
        now = fixed_log_probs(decoder, mismatched, self.config.micro_batch_tokens, self.device)
        before = [self.elsewhere[number] for number in known]
        ratios = [a - b for own, fixed in zip(now, before, strict=True) for a, b in zip(own, fixed, strict=True)]
        return mismatched_kl(torch.tensor(ratios, dtype=torch.float64, device=self.device))

    @torch.no_grad()
    def _sides(self, read: _Read, chosen: Tensor, rejected: Tensor, shares: Tensor, tied: Sequence[bool]) -> Metrics:
        """Mean log-probabilities and lengths of both sides; of a tied pair each side is the mean of the two."""
        level = torch.tensor(tied, dtype=torch.bool, device=self.device)
        metrics = {}
        for name, values in (("log_prob", read.sums), ("length", read.lengths)):
            one, other = values[chosen], values[rejected]
            middle = (one + other) / 2
            metrics[f"chosen_{name}"] = (shares * torch.where(level, middle, one)).sum()
            metrics[f"rejected_{name}"] = (shares * torch.where(level, middle, other)).sum()
        return metrics


def _with(tasks: Sequence[PairedTask], read: _Read) -> Iterable[tuple[PairedTask, int]]:
    return zip(tasks, read.starts, strict=False)
