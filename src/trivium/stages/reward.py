"""A reward model: scalar heads on a checkpoint, trained on rankings as they were given; measured on held-out ones."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trivium import files
from trivium.config import RewardConfig
from trivium.data import sources
from trivium.data.mixture import batch_indices
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.evaluation import best_of_n
from trivium.evaluation.reward_model import Floats, Scored, evaluate, longer_wins, policy_variance
from trivium.feedback.rankings.grouping import prompt_share
from trivium.feedback.rankings.record import Response
from trivium.feedback.rankings.sources import read_rankings
from trivium.feedback.reward_model import STATISTICS, Item, RewardModel
from trivium.feedback.rewards import RewardFunction
from trivium.generation.engine import Engine
from trivium.generation.rollouts import Rollout, sample_group_rollouts
from trivium.model.decoder import Decoder
from trivium.model.huggingface import load_language_model, load_model, read_config
from trivium.model.scalar import refuse_scores, scalar_decoder
from trivium.objectives.ranking import outcome_log_probs
from trivium.preflight import check_reward
from trivium.stages.context import StageContext, adapted, save_result
from trivium.stages.sampler import Asked, sampling_settings
from trivium.streams import stream_key
from trivium.text.chat import prompt_ids
from trivium.text.tokenizer import Tokenizer
from trivium.training import distributed
from trivium.training.device import choose_device
from trivium.training.loop import Loop
from trivium.training.reward import (
    RankedTask,
    Update,
    by_probabilities,
    check_rankings,
    group_tasks,
    head_weights,
    held_out_metrics,
    split_tasks,
    tokenise,
)

STATISTICS_TASKS = 1000  # of the training tasks, where no prompts are given: enough for a mean and a deviation

Sampled = list[tuple[Prompt, list[Rollout]]]


def main(context: StageContext) -> dict[str, object]:
    """Run the stage; resumes from STAGE/checkpoints. Returns its summary (see ``trivium.run``)."""
    config: RewardConfig = context.config
    check_reward(config, context.name)
    device = choose_device(context.recipe)
    asked = policy_prompts(context)  # what is wrong with them is told before any time is spent on training
    decoder, tokenizer = start(context, device)
    tasks, too_long = ranked_tasks(context, tokenizer, decoder.config.context_length)
    train, validation, test = parts(context, tasks, tokenizer, decoder.config.context_length)
    check_parts(context, train, test)
    weights = head_weights(train, config, context.recipe.seed, context.name)
    held_out = Update(validation, uniform(validation, config.heads), config, device)

    loop = Loop(
        context.directory,
        decoder,
        config,
        progress=context.progress,
        validate=(lambda: held_out_metrics(decoder, held_out)) if validation else None,
    )
    for step in loop.steps():
        drawn = batch_indices(context.recipe.seed, context.name, step, config.batch_size, [len(train)])
        chosen = [number for _, number in drawn]
        update = Update([train[number] for number in chosen], [weights[number] for number in chosen], config, device)
        loop.update(update.micro_batches(), lambda part: update.loss(decoder, part), tokens=update.tokens)

    model = RewardModel(distributed.full_copy(decoder), tokenizer)
    sampled = policy_samples(context, asked, device)
    answers = score(model, [[_item(prompt, rollout) for rollout in group] for prompt, group in sampled])
    model.mean, model.std = statistics(answers or score_tasks(model, spread(train, STATISTICS_TASKS)))
    evaluation = {
        "stage": context.name,
        "kind": "reward",
        **evaluate(scored(model, test), win_of(config), longer_wins(train), context.recipe.seed),
        "policy": policy_variance([finite(raw).mean(1).tolist() for raw in answers]),
        "best_of_n": best_of(context, model, sampled, answers),
        "normalisation": {"mean": model.mean.tolist(), "std": model.std.tolist()},
    }
    save_result(context, decoder, tokenizer)
    if distributed.is_main():
        files.write_json(context.directory / "model" / STATISTICS, about(model, tasks))
        files.write_json(context.directory / "evaluation.json", evaluation)
    distributed.barrier()
    numbers = {"rankings": sum(len(task.rankings) for task in tasks), "tasks": len(tasks), "too_long": too_long}
    loop.generated += sum(rollout.length for _, group in sampled for rollout in group)
    accuracy = {"name": "pair_accuracy", "value": evaluation["pairs"]["accuracy"], "better": "higher"}
    return {**loop.summary("loss", numbers), "metric": accuracy}


# ---- before training ------------------------------------------------------------------------------------------------


def start(context: StageContext, device: torch.device) -> tuple[Decoder, Tokenizer]:
    """Fresh scalar heads on the decoder of ``init``, which may be a language model or a reward model."""
    config: RewardConfig = context.config
    source = context.place(config.init)
    drawn = torch.Generator().manual_seed(stream_key(context.recipe.seed, f"{context.name}/heads"))
    body = load_model(source, device=device)
    decoder = scalar_decoder(body, config.heads, config.head_init, drawn)
    return adapted(context, decoder), Tokenizer.load(source)


def policy_prompts(context: StageContext) -> list[Asked]:
    """The prompts that ``config.policy`` is to answer, with their tokens; UserError where it cannot."""
    config: RewardConfig = context.config
    if not config.prompts:
        return []
    policy = config.policy or config.init
    source = context.place(policy)
    known, tokenizer = read_config(source), Tokenizer.load(source)
    refuse_scores(known, policy)
    parts = sources.prompts(config.prompts, context.recipe)
    sizes, weights = [len(part) for part in parts], [part.weight for part in config.prompts]
    limit = min(config.prompt_limit, sum(sizes))
    pairs = batch_indices(context.recipe.seed, f"{context.name}/policy", 0, limit, sizes, weights)
    drawn = [parts[part][number] for part, number in pairs]
    prompts = {(prompt.id, prompt.messages): prompt for prompt in drawn}.values()  # two files may use the same ids
    asked = [(prompt, prompt_ids(tokenizer, prompt.messages)) for prompt in prompts]
    for prompt, tokens in asked:
        if len(tokens) >= known.context_length:
            raise UserError(
                f"{context.name}.prompts: the prompt {prompt.id} has {len(tokens)} tokens, the context of {policy} is "
                f"{known.context_length}; shorten or drop it, or use a model with a longer context"
            )
    return asked


def ranked_tasks(context: StageContext, tokenizer: Tokenizer, limit: int) -> tuple[list[RankedTask], int]:
    """All tasks to learn from, with their tokens, and how many responses are longer than the context."""
    config: RewardConfig = context.config
    tasks, too_long = tasks_of(context, "rankings", tokenizer, limit)
    check_rankings(tasks, config, context.name)
    return tasks, too_long


def tasks_of(context: StageContext, key: str, tokenizer: Tokenizer, limit: int) -> tuple[list[RankedTask], int]:
    """The tasks of the sources under ``key`` that hold a comparison; UserError if none does."""
    config: RewardConfig = context.config
    placed = [part.model_copy(update={"source": context.place(part.source)}) for part in getattr(config, key)]
    rankings = read_rankings(placed)
    tasks, too_long = tokenise(group_tasks(rankings), tokenizer, limit, config.ties, by_probabilities(config))
    if not tasks:
        cause = f"{too_long} responses are longer than the model's context of {limit} tokens" if too_long else ""
        raise UserError(
            f"{context.name}: none of {len(rankings)} rankings compares two responses"
            f"{f' ({cause})' if cause else ''}; check {context.name}.{key} and its criterion"
        )
    return tasks, too_long


def parts(
    context: StageContext, tasks: Sequence[RankedTask], tokenizer: Tokenizer, limit: int
) -> tuple[list[RankedTask], list[RankedTask], list[RankedTask]]:
    """Tasks to train on, to validate and to test with: a share of the prompts, or ``config.test``, whose prompts the
    others then leave out."""
    config: RewardConfig = context.config
    if not config.test:
        return split_tasks(tasks, config.validation_share, config.test_share, config.fold)
    test, _ = tasks_of(context, "test", tokenizer, limit)
    held_out = {prompt_share(task.prompt) for task in test}
    others = [task for task in tasks if prompt_share(task.prompt) not in held_out]
    train, validation, _ = split_tasks(others, config.validation_share, 0.0)
    return train, validation, test


def check_parts(context: StageContext, train: Sequence[RankedTask], test: Sequence[RankedTask]) -> None:
    config: RewardConfig = context.config
    shares = "test" if config.test else f"test_share ({config.test_share})"
    for part, tasks in (("train on", train), ("test with", test)):
        if not tasks:
            raise UserError(
                f"{context.name}: no prompt is left to {part}; rank more prompts, or change {context.name}.{shares} "
                f"and validation_share ({config.validation_share})"
            )
    count = len(train)
    context.progress.note(
        f"{context.name}: {sum(len(task.rankings) for task in train):,} rankings of {count:,} tasks to train on, "
        f"{sum(len(task.rankings) for task in test):,} of {len(test):,} to test with"
    )


def uniform(tasks: Sequence[RankedTask], heads: int) -> list[list[list[float]]]:
    """Every ranking counts alike for every head."""
    return [[[1.0] * len(task.rankings)] * heads for task in tasks]


# ---- after training -------------------------------------------------------------------------------------------------


def _item(prompt: Prompt, response: Rollout | Response) -> Item:
    return prompt.messages, response.text, response.finish_reason == "stop"


def score(model: RewardModel, groups: Sequence[Sequence[Item]]) -> list[Floats]:
    """Raw scores (N, heads) of each group; NaN for what is longer than the model's context. Ranks share the work."""
    items = [item for group in groups for item in group]
    own = items[distributed.rank() :: distributed.world_size()]
    fits = [len(tokens) <= model.context_length for tokens in model.tokens(own)]
    found = iter(model.score([item for item, fit in zip(own, fits, strict=True) if fit]).tolist())
    rows = [next(found) if fit else [math.nan] * model.heads for fit in fits]
    raw = np.array(distributed.gather_in_order(rows, len(items)), dtype=np.float64).reshape(-1, model.heads)
    return np.split(raw, np.cumsum([len(group) for group in groups])[:-1]) if groups else []


def score_tasks(model: RewardModel, tasks: Sequence[RankedTask]) -> list[Floats]:
    return score(model, [[_item(task.prompt, response) for response in task.responses] for task in tasks])


def finite(raw: Floats) -> Floats:
    return raw[~np.isnan(raw).any(axis=1)]


def spread(tasks: Sequence[RankedTask], most: int) -> Sequence[RankedTask]:
    """At most ``most`` tasks, from beginning to end."""
    return tasks[:: -(-len(tasks) // most)]


def scored(model: RewardModel, tasks: Sequence[RankedTask]) -> list[Scored]:
    pairs = zip(tasks, score_tasks(model, tasks), strict=True)
    return [Scored(task, normalised(model, raw), raw) for task, raw in pairs]


def normalised(model: RewardModel, raw: Floats) -> Floats:
    """(N,) the mean over heads on the scale of the model's statistics."""
    values: Floats = ((raw - model.mean.numpy()) / model.std.numpy()).mean(axis=1)
    return values


def statistics(parts: Sequence[Floats]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each head, (heads,) float32; a head whose scores are all equal keeps its scale."""
    raw = np.concatenate([finite(part) for part in parts])
    mean, std = raw.mean(axis=0), raw.std(axis=0)
    std = np.where(std > 1e-8, std, 1.0)
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)


def policy_samples(context: StageContext, asked: Sequence[Asked], device: torch.device) -> Sampled:
    """Answers of ``config.policy``, which the normalisation and best-of-n are measured on."""
    config: RewardConfig = context.config
    if not asked:
        return []
    source = context.place(config.policy or config.init)
    policy, tokenizer = load_language_model(source, device=device).eval(), Tokenizer.load(source)
    stream, seed = f"{context.name}/policy", context.recipe.seed
    own = range(distributed.rank(), len(asked), distributed.world_size())
    engine = Engine(policy, decode=tokenizer.decode)
    settings = sampling_settings(config.sampling, tokenizer)
    chosen = [asked[number] for number in own]
    groups = sample_group_rollouts(engine, tokenizer, chosen, config.samples, settings, seed, stream, list(own))
    prompts = [prompt for prompt, _ in asked]
    return list(zip(prompts, distributed.gather_in_order(groups, len(asked)), strict=True))


def win_of(config: RewardConfig) -> Any:
    """Differences of raw scores to the probability that the first is better, given that one of them is."""

    def win(differences: Floats) -> Floats:
        first, second, _ = outcome_log_probs(torch.from_numpy(differences), config.ties, config.tie_parameter)
        probability: Floats = (first - second).sigmoid().numpy()
        return probability

    return win


def best_of(
    context: StageContext, model: RewardModel, sampled: Sampled, answers: Sequence[Floats]
) -> dict[str, Any] | None:
    """Best-of-n by this model, measured by ``config.gold``; prompts with an answer that cannot be judged are left out.

    None where no gold score is known.
    """
    config: RewardConfig = context.config
    if config.gold is None or not sampled:
        return None
    judge = RewardFunction({"gold": config.gold})
    proxies, golds = [], []
    for (prompt, group), raw in zip(sampled, answers, strict=True):
        rewards = judge.score([(prompt, rollout) for rollout in group])
        values = normalised(model, raw)
        if all(reward.valid for reward in rewards) and np.isfinite(values).all():
            proxies.append(values.tolist())
            golds.append([reward.total for reward in rewards])
    if not golds:
        raise UserError(f"{context.name}.gold could judge no answer ({judge.failure}); mend it and run again")
    return best_of_n.curve(proxies, golds, seed=context.recipe.seed)


def about(model: RewardModel, tasks: Sequence[RankedTask]) -> dict[str, Any]:
    """reward.json: what raw scores mean. ``score`` of transformers is raw; normalised is (raw - mean) / std."""
    rankings = [ranking for task in tasks for ranking in task.rankings]
    return {
        "mean": model.mean.tolist(),
        "std": model.std.tolist(),
        "criterion": ", ".join(sorted({ranking.criterion for ranking in rankings})),
        "rankings": len(rankings),
        "heads": model.heads,
    }
