"""What the dpo stage learns from: tasks out of rankings and labels, and what the reference says of their answers."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trivium import files
from trivium.config import DPOConfig
from trivium.data import sources
from trivium.errors import UserError
from trivium.feedback.rankings.sources import read_rankings
from trivium.model.decoder import Decoder
from trivium.stages.context import StageContext
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed
from trivium.training.preference import LogProbs, PairedTask, held_out, labelled_tasks, paired_tasks, with_others
from trivium.training.preference_update import Update, fixed_log_probs

CACHE = "reference.json"


@dataclass(frozen=True)
class Known:
    """Tasks, and the reference's log-probabilities of their answers: under their own prompt, and under another."""

    tasks: list[PairedTask]
    reference: list[LogProbs]
    elsewhere: list[LogProbs]

    def part(self, numbers: Sequence[int]) -> "Known":
        reference, elsewhere = ([of[number] for number in numbers] for of in (self.reference, self.elsewhere))
        return Known([self.tasks[number] for number in numbers], reference, elsewhere)

    def update(self, numbers: Sequence[int], config: DPOConfig, device: torch.device) -> Update:
        part = self.part(numbers)
        return Update(part.tasks, part.reference, config, device, part.elsewhere)

    def whole(self, config: DPOConfig, device: torch.device) -> Update:
        return self.update(range(len(self.tasks)), config, device)


@dataclass(frozen=True)
class Lesson:
    """What is learned from until the next round, and what is held out."""

    train: Known
    held_out: Known

    @classmethod
    def of(cls, known: Known, share: float) -> "Lesson":
        """``known``, with ``share`` of the prompts held out."""
        places: tuple[list[int], list[int]] = ([], [])
        for number, task in enumerate(known.tasks):
            places[held_out(task, share)].append(number)
        return cls(known.part(places[0]), known.part(places[1]))


def mismatched(config: DPOConfig) -> bool:
    """Whether answers are read under prompts that are not theirs too."""
    return config.loss == "kto" and config.kto_baseline == "mismatched"


def stated_tasks(
    context: StageContext, tokenizer: Tokenizer, limit: int
) -> tuple[list[PairedTask], list[PairedTask], dict[str, int]]:
    """The tasks to learn from and those held out, by a hash of their prompts, and how many of what there are."""
    config: DPOConfig = context.config
    placed = [part.model_copy(update={"source": context.place(part.source)}) for part in config.rankings]
    rankings = read_rankings(placed) if placed else []
    labelled = sources.labelled(config.labelled, context.recipe)
    tasks, too_long = paired_tasks(rankings, tokenizer, limit, config)
    ranked = sum(len(task.task.rankings) for task in tasks)
    more, longer = labelled_tasks(labelled, tokenizer, limit)
    tasks, too_long = tasks + more, too_long + longer
    train = [task for task in tasks if not held_out(task, config.validation_share)]
    validation = [task for task in tasks if held_out(task, config.validation_share)]
    _check(context, train, len(rankings), len(labelled), too_long, limit, len(validation))
    said = sum(task.comparisons for task in tasks)
    what = {"kto": "labels", "plackett_luce": "rankings"}.get(config.loss, "pairs")
    parts = [f"{ranked:,} of {len(rankings):,} rankings (the others order nothing)"] if rankings else []
    parts += [f"{len(labelled):,} labelled answers"] if labelled else []
    context.progress.note(
        f"{context.name}: {what}: {said:,}, from {' and '.join(parts)}; "
        f"tasks to learn from: {len(train):,}, to validate with: {len(validation):,}"
    )
    numbers = {"rankings": ranked, "tasks": len(tasks), "too_long": too_long}
    if labelled:
        numbers["labelled"] = len(labelled)
    if what != "rankings":
        numbers[what] = said
    return *(_with_others(config, part, limit) for part in (train, validation)), numbers  # type: ignore[return-value]


def _with_others(config: DPOConfig, tasks: list[PairedTask], limit: int) -> list[PairedTask]:
    return with_others(tasks, limit) if mismatched(config) else tasks


def _check(
    context: StageContext,
    train: Sequence[PairedTask],
    rankings: int,
    labelled: int,
    too_long: int,
    limit: int,
    validation: int,
) -> None:
    """UserError where there is nothing to learn from, or nothing of a kind that the loss needs."""
    name, config = context.name, context.config
    cause = f"{too_long} responses are longer than the model's context of {limit} tokens, " if too_long else ""
    left_out = f"{cause}{validation} {'prompt is' if validation == 1 else 'prompts are'} held out"
    if not train:
        what = {"kto": "a label", "plackett_luce": "an order"}.get(config.loss, "a pair")
        given = f"{rankings + labelled} {'rows' if labelled else 'rankings'} gives {what}"
        keys = f"{name}.rankings" if not labelled else f"{name}.labelled"
        raise UserError(
            f"{name}: none of {given} to learn from ({left_out}); "
            f"check {keys}, and validation_share ({config.validation_share})"
        )
    if config.imitation and not any(task.best for task in train):
        raise UserError(f"{name}.sft_weight is {config.imitation}, but no answer here is good or the best of a ranking")
    if mismatched(config) and len({task.prompt for task in train}) < 2:
        raise UserError(
            f"{name}.kto_baseline is mismatched, which needs two different prompts to learn from, and there is one "
            f"({left_out}); set it to none, or check validation_share ({config.validation_share})"
        )


def read_reference(
    decoder: Decoder, tasks: Sequence[PairedTask], config: DPOConfig, device: torch.device
) -> tuple[list[LogProbs], list[LogProbs]]:
    """What ``decoder``, the reference, says of the answers of each task under its prompt and under another (all ranks
    must call); empty where the loss does not ask."""
    budget = config.micro_batch_tokens
    own: list[LogProbs] = [()] * len(tasks)
    elsewhere: list[LogProbs] = [()] * len(tasks)
    if config.compared:
        own = list(fixed_log_probs(decoder, tasks, budget, device))
    turned = [number for number, task in enumerate(tasks) if task.other]
    if turned:
        found = fixed_log_probs(decoder, [tasks[number].mismatched() for number in turned], budget, device)
        for number, values in zip(turned, found, strict=True):
            elsewhere[number] = values
    return own, elsewhere


def cached_reference(
    context: StageContext,
    policy: Decoder,
    identity: str,
    tasks: Sequence[PairedTask],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> tuple[list[LogProbs], list[LogProbs]]:
    """``read_reference`` of the ``policy`` that the stage begins with, once: STAGE/reference.json keeps it for a stage
    that is resumed. It is known by ``identity``, a hash of the weights, and by the answers (all ranks must call)."""
    config: DPOConfig = context.config
    if not config.compared:
        return read_reference(policy, tasks, config, device)
    path = context.directory / CACHE
    about = [identity, config.precision, [[task.prompt, task.other, task.answers] for task in tasks]]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    held = shared(_kept(path, key) if distributed.is_main() else None)
    if held is not None:
        return held
    with autocast():
        found = read_reference(policy, tasks, config, device)
    if distributed.is_main():
        files.write_text(path, json.dumps({"key": key, "own": found[0], "elsewhere": found[1]}) + "\n")
    return found


def _kept(path: Path, key: str) -> tuple[list[LogProbs], list[LogProbs]] | None:
    """What the file holds, if it is whole and of this key: what is not can be made again."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return (held["own"], held["elsewhere"]) if held["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def shared(value: Any) -> Any:
    """What the first rank holds, on all of them (all must call)."""
    return distributed.gather_in_order([value], distributed.world_size())[0]


def weights_hash(decoder: Decoder, tokenizer: Tokenizer) -> str:
    """A hash of all weights and the tokenizer: what a policy that judges itself is known by, and a reference."""
    digest = hashlib.sha256(tokenizer.fingerprint.encode())
    for name, parameter in decoder.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()
