"""Direct preference optimisation: from rankings that are there, or from a judge's of the policy's own answers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from trivium.config import DPOConfig
from trivium.data.mixture import batch_indices
from trivium.errors import UserError
from trivium.feedback.rankings.sources import read_rankings
from trivium.model.decoder import Decoder
from trivium.preflight import check_dpo
from trivium.stages.context import StageContext, load_start, save_result
from trivium.stages.rounds import Lesson, Rounds, round_of
from trivium.text.tokenizer import Tokenizer
from trivium.training.device import choose_device
from trivium.training.loop import Loop
from trivium.training.preference import PairedTask, Update, fixed_log_probs, held_out, paired_tasks
from trivium.training.reward import held_out_metrics


def main(context: StageContext) -> dict[str, object]:
    """Run the stage; resumes from STAGE/checkpoints. Returns its summary (see ``trivium.run``)."""
    config: DPOConfig = context.config
    check_dpo(config, context.name)
    device = choose_device(context.recipe)
    policy, tokenizer = load_start(context, config.init, device)
    learn = from_rankings if config.judge is None else from_itself
    loop, numbers = learn(context, policy, tokenizer, device)
    save_result(context, policy, tokenizer)
    return loop.summary("loss", numbers)


def from_rankings(
    context: StageContext, policy: Decoder, tokenizer: Tokenizer, device: torch.device
) -> tuple[Loop, dict[str, Any]]:
    """Learn from the pairs of ``config.rankings``. The reference is the policy that the stage begins with, so its
    log-probabilities are computed once, before the first update, and no second model is held."""
    config: DPOConfig = context.config
    train, validation, numbers = ranked_pairs(context, tokenizer, policy.config.context_length)
    used = sorted({number for step in range(config.steps) for number in drawn(context, step, len(train))})
    lesson = Lesson(train, [()] * len(train), validation, [])

    def validate() -> dict[str, float]:
        return held_out_metrics(policy, Update(lesson.held_out, lesson.held_out_reference, config, device))

    loop = make_loop(context, policy, validate if validation else None)
    with loop.autocast():  # before the loop resumes, which gives the policy its later weights
        found = fixed_log_probs(policy, [train[number] for number in used], config.micro_batch_tokens, device)
        lesson.held_out_reference.extend(fixed_log_probs(policy, validation, config.micro_batch_tokens, device))
    for number, values in zip(used, found, strict=True):
        lesson.reference[number] = values
    for step in loop.steps():
        update(loop, policy, lesson, drawn(context, step, len(train)), config, device)
    return loop, numbers


def from_itself(
    context: StageContext, policy: Decoder, tokenizer: Tokenizer, device: torch.device
) -> tuple[Loop, dict[str, Any]]:
    """Learn in rounds: the policy answers, the judge scores, best against worst is learned from, and again. The
    reference of a round is the policy at its beginning."""
    config: DPOConfig = context.config
    lesson: Lesson | None = None
    present = -1

    def validate() -> dict[str, float]:
        if lesson is None or not lesson.held_out:
            return {}
        return held_out_metrics(policy, Update(lesson.held_out, lesson.held_out_reference, config, device))

    loop = make_loop(context, policy, validate if config.validation_share else None)
    rounds = Rounds(context, tokenizer, device, loop.autocast)
    first = 0
    for step in loop.steps():
        number = round_of(step, config.steps, config.iterations)
        if lesson is None or number != present:
            first, present = number * config.steps // config.iterations, number
            with loop.phase("answer"):
                lesson = rounds.begin(number, policy, first_step=step == first)
        chosen = drawn(context, step - first, len(lesson.train), f"iteration-{number + 1}")
        update(loop, policy, lesson, chosen, config, device)
    rows = rounds.rows()
    return loop, {"iterations": rows, "pairs": sum(row["pairs"] for row in rows), "after": rounds.after(policy)}


def make_loop(context: StageContext, policy: Decoder, validate: Callable[[], dict[str, float]] | None) -> Loop:
    return Loop(context.directory, policy, context.config, progress=context.progress, validate=validate)


def ranked_pairs(
    context: StageContext, tokenizer: Tokenizer, limit: int
) -> tuple[list[PairedTask], list[PairedTask], dict[str, int]]:
    """The tasks to learn from and those held out, by a hash of their prompts, and how many of what there are."""
    config: DPOConfig = context.config
    placed = [part.model_copy(update={"source": context.place(part.source)}) for part in config.rankings]
    rankings = read_rankings(placed)
    tasks, too_long = paired_tasks(rankings, tokenizer, limit)
    train = [task for task in tasks if not held_out(task, config.validation_share)]
    if not train:
        cause = f"{too_long} responses are longer than the model's context of {limit} tokens, " if too_long else ""
        raise UserError(
            f"{context.name}: none of {len(rankings)} rankings gives a pair to learn from ({cause}{len(tasks)} prompts "
            f"are held out); check {context.name}.rankings, and validation_share ({config.validation_share})"
        )
    validation = [task for task in tasks if held_out(task, config.validation_share)]
    pairs = sum(len(task.pairs) for task in tasks)
    ranked = sum(len(task.task.rankings) for task in tasks)
    context.progress.note(
        f"{context.name}: pairs: {pairs:,}, from {ranked:,} of {len(rankings):,} rankings (the others order nothing); "
        f"tasks to learn from: {len(train):,}, to validate with: {len(validation):,}"
    )
    return train, validation, {"rankings": ranked, "tasks": len(tasks), "pairs": pairs, "too_long": too_long}


def drawn(context: StageContext, step: int, tasks: int, turn: str = "") -> list[int]:
    """The numbers of the tasks of a step: all are learned from before one is again."""
    name = f"{context.name}/{turn}" if turn else context.name
    return [n for _, n in batch_indices(context.recipe.seed, name, step, context.config.batch_size, [tasks])]


def update(
    loop: Loop, policy: Decoder, lesson: Lesson, chosen: Sequence[int], config: DPOConfig, device: torch.device
) -> None:
    reference = [lesson.reference[number] for number in chosen]
    batch = Update([lesson.train[number] for number in chosen], reference, config, device)
    loop.update(batch.micro_batches(), partial(batch.loss, policy), tokens=batch.tokens)
