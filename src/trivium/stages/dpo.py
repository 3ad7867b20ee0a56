"""Preference optimisation: from rankings and labels that are there, or from scores of the policy's own answers."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch

from trivium.config import DPOConfig
from trivium.data import sources
from trivium.data.mixture import batch_indices
from trivium.data.records import Prompt
from trivium.model.decoder import Decoder
from trivium.preflight import check_dpo
from trivium.stages.context import StageContext, load_start, save_result
from trivium.stages.divergence import Divergence
from trivium.stages.lesson import Known, Lesson, cached_reference, stated_tasks, weights_hash
from trivium.stages.rounds import Rounds, round_of
from trivium.text.tokenizer import Tokenizer
from trivium.training.device import choose_device
from trivium.training.loop import Loop
from trivium.training.reward import held_out_metrics


def main(context: StageContext) -> dict[str, object]:
    """Run the stage; resumes from STAGE/checkpoints. Returns its summary (see ``trivium.run``)."""
    config: DPOConfig = context.config
    check_dpo(config, context.name)
    device = choose_device(context.recipe)
    policy, tokenizer = load_start(context, config.init, device)
    learn = from_itself if config.iterated else from_data
    loop, numbers = learn(context, policy, tokenizer, device)
    save_result(context, policy, tokenizer)
    return loop.summary("loss", {"preference_loss": config.loss, **numbers})


def from_data(
    context: StageContext, policy: Decoder, tokenizer: Tokenizer, device: torch.device
) -> tuple[Loop, dict[str, Any]]:
    """Learn from ``config.rankings`` and ``config.labelled``. The reference is the policy that the stage begins with,
    so its log-probabilities are computed once, before the first update, and no second model is held."""
    config: DPOConfig = context.config
    train, validation, numbers = stated_tasks(context, tokenizer, policy.config.context_length)
    used = sorted({number for step in range(config.steps) for number in drawn(context, step, len(train))})
    lesson = Lesson(Known(train, [()] * len(train), [()] * len(train)), Known(validation, [], []))
    watched = [task.task.prompt for task in validation] if config.kl_prompts else []
    divergence = Divergence(context, policy, tokenizer, device, watched) if config.kl_prompts else None
    identity = weights_hash(policy, tokenizer) if config.compared else ""

    def validate() -> dict[str, float]:
        metrics = held_out_metrics(policy, lesson.held_out.whole(config, device))
        return metrics | (divergence.metrics(policy) if divergence is not None else {})

    loop = make_loop(context, policy, validate if validation else None, divergence)
    asked = [*(train[number] for number in used), *validation]
    # before the loop resumes, which gives the policy its later weights
    own, elsewhere = cached_reference(context, policy, identity, asked, device, loop.autocast)
    for place, number in enumerate(used):
        lesson.train.reference[number], lesson.train.elsewhere[number] = own[place], elsewhere[place]
    lesson.held_out.reference.extend(own[len(used) :])
    lesson.held_out.elsewhere.extend(elsewhere[len(used) :])
    for step in loop.steps():
        update(loop, policy, lesson, drawn(context, step, len(train)), config, device)
    return loop, numbers


def from_itself(
    context: StageContext, policy: Decoder, tokenizer: Tokenizer, device: torch.device
) -> tuple[Loop, dict[str, Any]]:
    """Learn in rounds: the policy answers, a judge or a reward scores, what it prefers is learned from, and again. The
    reference of a round is the policy at its beginning."""
    config: DPOConfig = context.config
    lesson: Lesson | None = None
    present = -1
    divergence = None
    if config.kl_prompts:
        divergence = Divergence(context, policy, tokenizer, device, asked_prompts(context))

    def validate() -> dict[str, float]:
        metrics: dict[str, float] = {}
        if lesson is not None and lesson.held_out.tasks:
            metrics = held_out_metrics(policy, lesson.held_out.whole(config, device))
        return metrics | (divergence.metrics(policy) if divergence is not None else {})

    loop = make_loop(context, policy, validate if config.validation_share else None, divergence)
    with closing(Rounds(context, tokenizer, device, loop.autocast)) as rounds:
        first = 0
        for step in loop.steps():
            number = round_of(step, config.steps, config.iterations)
            if lesson is None or number != present:
                first, present = number * config.steps // config.iterations, number
                with loop.phase("answer"):
                    lesson = rounds.begin(number, policy, first_step=step == first)
                if step == first:  # else the checkpoint has counted them
                    loop.generated += rounds.generated(number)
            if not lesson.train.tasks:
                loop.leave_out()
                continue
            chosen = drawn(context, step - first, len(lesson.train.tasks), f"iteration-{number + 1}")
            update(loop, policy, lesson, chosen, config, device)
        rows = rounds.rows()
        return loop, {"iterations": rows, "pairs": sum(row["pairs"] for row in rows), "after": rounds.after(policy)}


def asked_prompts(context: StageContext) -> list[Prompt]:
    return [prompt for part in sources.prompts(context.config.prompts, context.recipe) for prompt in part]


def make_loop(
    context: StageContext,
    policy: Decoder,
    validate: Callable[[], dict[str, float]] | None,
    divergence: Divergence | None,
) -> Loop:
    loop = Loop(context.directory, policy, context.config, progress=context.progress, validate=validate)
    if divergence is not None and divergence.reference is not None:
        loop.held.append(divergence.reference)
    return loop


def drawn(context: StageContext, step: int, tasks: int, turn: str = "") -> list[int]:
    """The numbers of the tasks of a step, at most all of them: all are learned from before one is again."""
    name = f"{context.name}/{turn}" if turn else context.name
    size = min(context.config.batch_size, tasks)
    return [n for _, n in batch_indices(context.recipe.seed, name, step, size, [tasks])]


def update(
    loop: Loop, policy: Decoder, lesson: Lesson, chosen: Sequence[int], config: DPOConfig, device: torch.device
) -> None:
    batch = lesson.train.update(chosen, config, device)
    loop.update(batch.micro_batches(), partial(batch.loss, policy), tokens=batch.tokens)
