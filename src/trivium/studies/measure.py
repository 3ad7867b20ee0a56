"""One model measured: tasks answer by answer, the best of several samples, the KL to another model by sampling.

This is the work of a process of its own: a request (JSON) in, its result (JSON) beside it. See ``request``.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivium import files
from trivium.errors import UserError

if TYPE_CHECKING:
    from trivium.config import MeasureConfig, TaskConfig
    from trivium.data.records import Prompt
    from trivium.evaluation.evaluate import Examiner
    from trivium.generation.rollouts import Rollout
    from trivium.model.decoder import Decoder

SCORING_TOKENS = 16384  # of one forward pass under the model that the KL is to
Value = dict[str, Any]  # {"value": float | None, "items": {prompt id: float}}


def measure(path: Path) -> None:
    """Do what the request in ``path`` asks; the result is in ``result.json`` beside it.

    The request: ``recipe`` (plain data), ``stage`` and ``model`` (its name and directory), ``measures`` by name (each
    a MeasureConfig), ``kl_to`` (directories by measure) and ``best_of`` (null, or a BestOfConfig). The result:
    ``measures`` by name, each ``{"value", "items"}``, and ``answer_tokens``, tokens generated for an answer to a
    prompt of the first task.
    """
    from trivium.config import BestOfConfig, MeasureConfig, RecipeConfig

    asked = files.read_json(path)
    recipe = RecipeConfig.model_validate(asked["recipe"])
    measures = {name: MeasureConfig.model_validate(value) for name, value in asked["measures"].items()}
    best_of = None if asked["best_of"] is None else BestOfConfig.model_validate(asked["best_of"])
    examiner = open_examiner(recipe, asked["stage"], asked["model"], best_of)
    found: dict[str, Value] = {}
    for task, names in by_task(measures).items():
        answers = examine(examiner, task, [measures[name] for name in names])
        found |= {name: of_task(measures[name], answers, best_of is not None) for name in names}
    for name, config in measures.items():
        if config.kl_to is not None:
            found[name] = kl_measure(examiner, config, asked["model"], asked["kl_to"][name])
    files.write_json(path.with_name("result.json"), {"measures": found, "answer_tokens": examiner.tokens_of_answer()})


def open_examiner(recipe: Any, stage: str, model: str, best_of: Any) -> Any:
    """An examiner of the model in the directory ``model``, on the device of the recipe."""
    import torch

    from trivium.generation.engine import Engine
    from trivium.model.huggingface import load_language_model
    from trivium.text.tokenizer import Tokenizer
    from trivium.training.device import choose_device

    device = choose_device(recipe)
    tokenizer, decoder = Tokenizer.load(model), load_language_model(model, device=device).eval()
    config = recipe.stages[stage]
    precision = torch.bfloat16 if config.precision == "bfloat16" else None
    engine = Engine(decoder, decode=tokenizer.decode, autocast=precision)
    return make_examiner()(recipe, engine, tokenizer, device, config.kind != "pretrain", best_of)


def make_examiner() -> type:
    """The class, made when it is asked for: it comes with torch."""
    from trivium.evaluation.evaluate import Examiner
    from trivium.feedback.rewards import RewardFunction

    @dataclass
    class Answering(Examiner):
        """Answers greedily, or with the best of several samples; counts the tokens that answers took."""

        best_of: Any = None
        tokens: list[int] = field(default_factory=list)

        def _sample(self, prompts: "Sequence[Prompt]", task: "TaskConfig", samples: int) -> "list[list[Rollout]]":
            if samples or self.best_of is None:
                groups = super()._sample(prompts, task, samples)
            else:
                groups = self._best(prompts, task)
            if not samples and self.best_of is None and not self.tokens:
                self.tokens = [sum(rollout.length for rollout in group) for group in groups]
            return groups

        def _best(self, prompts: "Sequence[Prompt]", task: "TaskConfig") -> "list[list[Rollout]]":
            """For each prompt the sample that the scorer likes best, the first of equals."""
            groups = super()._sample(prompts, task, self.best_of.n)
            if not self.tokens:
                self.tokens = [sum(rollout.length for rollout in group) for group in groups]
            scorer = RewardFunction({"chosen": self.best_of.by}, device=self.device)
            try:
                items = [(prompt, item) for prompt, group in zip(prompts, groups, strict=True) for item in group]
                rewards = iter(scorer.score(items))
            finally:
                scorer.close()
            scores = [[next(rewards) for _ in group] for group in groups]
            if not any(reward.valid for of_group in scores for reward in of_group):
                raise UserError(f"best_of: {scorer.failure or 'no answer could be scored'}; choose another scorer")
            return [
                [max(zip(group, of_group, strict=True), key=lambda pair: (pair[1].valid, pair[1].total))[0]]
                for group, of_group in zip(groups, scores, strict=True)
            ]

        def tokens_of_answer(self) -> float | None:
            return statistics.fmean(self.tokens) if self.tokens else None

    return Answering


# ---- tasks -----------------------------------------------------------------------------------------------------------


def by_task(measures: "dict[str, MeasureConfig]") -> dict[str, list[str]]:
    """The measures of each task: it is answered once for all of them."""
    found: dict[str, list[str]] = {}
    for name, config in measures.items():
        if config.task is not None and config.kl_to is None:
            found.setdefault(config.task, []).append(name)
    return found


def examine(examiner: "Examiner", name: str, measures: "Sequence[MeasureConfig]") -> dict[str, Any]:
    """The evaluation of one task, without what none of ``measures`` asks for; ``threshold`` is the task's."""
    task = examiner.recipe.evaluation[name]
    wanted: dict[str, Any] = {"baseline": False, "references": False}
    if all(config.value != "sampled_accuracy" for config in measures):
        wanted["samples"] = 0
    return {**examiner.examine(name, task.model_copy(update=wanted)), "threshold": task.threshold}


def of_task(config: "MeasureConfig", answers: dict[str, Any], chosen: bool = False) -> Value:
    """One number of an evaluation, in all and by prompt; what could not be judged is in neither.

    Answers ``chosen`` among samples have no right samples of their own: those would be of the model that was sampled.

    >>> from trivium.config import MeasureConfig
    >>> results = [{"id": "a", "score": 1.0, "status": "ok"}, {"id": "b", "score": 0.4, "status": "ok"}]
    >>> of_task(MeasureConfig(task="t"), {"results": results, "threshold": 1.0})
    {'value': 0.5, 'items': {'a': 1.0, 'b': 0.0}}
    """
    if chosen and config.value == "sampled_accuracy":
        return {"value": None, "items": {}}
    items: dict[str, float] = {}
    seen: dict[str, float] = {}  # also what could not be judged has a name, or others would be paired with it
    for row in answers["results"]:
        seen[name := unused(row["id"], seen)] = 0.0
        if config.value == "sampled_accuracy":
            value = row.get("sampled_right")
        elif row["status"] == "infra_error":
            value = None
        elif config.value == "score":
            value = row["score"]
        else:
            value = float(row["status"] == "ok" and row["score"] >= answers["threshold"])
        if value is not None:
            items[name] = float(value)
    return {"value": statistics.fmean(items.values()) if items else None, "items": items}


def unused(name: str, taken: dict[str, float]) -> str:
    """``name``, or where two prompts have the same, ``name#2``."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}#{number}"
    return found


# ---- KL --------------------------------------------------------------------------------------------------------------


def kl_measure(examiner: Any, config: "MeasureConfig", model: str, other: str) -> Value:
    """KL to the model in the directory ``other``, nats a response, by sampling.

    Of best-of-n: to the model that it samples from the bound ln n - (n - 1) / n, which is no measurement and has no
    items; to any other model nothing is known.
    """
    from trivium.evaluation.best_of_n import kl_bound
    from trivium.model.huggingface import load_language_model

    same = Path(model).resolve() == Path(other).resolve()
    if examiner.best_of is not None:
        return {"value": kl_bound(examiner.best_of.n) if same else None, "items": {}}
    name = config.task or next(iter(examiner.recipe.evaluation))
    task = examiner.recipe.evaluation[name]
    # of the models themselves: with top-k or top-p, what one of them may say can be impossible for the other
    plain = task.sampling.model_copy(update={"temperature": 1.0, "top_k": 0, "top_p": 1.0})
    task = task.model_copy(update={"sampling": plain})
    prompts, _, _ = examiner._prompts(name, task)
    groups = examiner._sample(prompts, task, config.samples)
    decoder = examiner.engine.decoder if same else load_language_model(other, device=examiner.device).eval()
    ratios = log_ratios(decoder, groups, examiner, task)
    items: dict[str, float] = {}
    for prompt, of_prompt in zip(prompts, ratios, strict=True):
        items[unused(prompt.id, items)] = statistics.fmean(of_prompt)
    return {"value": statistics.fmean(items.values()), "items": items}


def log_ratios(
    decoder: "Decoder", groups: "Sequence[Sequence[Rollout]]", examiner: Any, task: "TaskConfig"
) -> list[list[float]]:
    """For each answer the sum over its tokens of its log-probability as sampled minus that under ``decoder``.

    The mean over answers is an unbiased estimate of KL(sampler || decoder) over whole responses (k1 of Schulman, 2020).
    """
    import torch

    from trivium.data.ragged import micro_batches
    from trivium.stages.sampler import sampling_settings
    from trivium.training.policy import completion_log_probs, group_tokens, own_length, own_log_probs, ragged_groups

    settings = sampling_settings(task.sampling, examiner.tokenizer)
    half = examiner.engine.autocast  # as the answers were sampled
    found: dict[int, list[float]] = {}
    with torch.no_grad(), torch.autocast(examiner.device.type, half or torch.bfloat16, enabled=half is not None):
        for part in micro_batches([group_tokens(list(group)) for group in groups], SCORING_TOKENS):
            chosen = [list(groups[index]) for index in part]
            batch = ragged_groups(chosen, True, examiner.device)
            flat = completion_log_probs(decoder, batch, settings)[0].double().cpu()
            sums = iter(piece.sum().item() for piece in flat.split([own_length(r) for g in chosen for r in g]))
            for index, group in zip(part, chosen, strict=True):
                found[index] = [sum(own_log_probs(rollout)) - next(sums) for rollout in group]
    return [found[index] for index in range(len(groups))]
