"""Evaluate a model on the tasks of a recipe: greedy accuracy, pass@k from samples, bits per byte of references."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from trivium.config import (
    DPOConfig,
    RankConfig,
    RankingSourceConfig,
    RecipeConfig,
    ReviseConfig,
    RewardConfig,
    RLConfig,
    SFTConfig,
    SourceConfig,
    TaskConfig,
)
from trivium.data import sources
from trivium.data.duplicates import drop_duplicates
from trivium.data.records import Conversation, LabelledAnswer, Message, Prompt
from trivium.errors import UserError
from trivium.evaluation.metrics import bits_per_byte
from trivium.evaluation.shares import (
    NOT_SAMPLED,
    constant_baseline,
    is_right,
    level_of,
    mean_score,
    right_shares,
    sample_numbers,
    slot_numbers,
    status_counts,
    teacher_numbers,
)
from trivium.feedback.rankings.record import Ranking
from trivium.feedback.rankings.sources import read_rankings
from trivium.feedback.verdict import Verdict
from trivium.feedback.verifiers import build
from trivium.feedback.verifiers.base import infra_error
from trivium.generation.engine import Engine
from trivium.generation.rollouts import Rollout, sample_group_rollouts
from trivium.generation.sampling import SamplingSettings
from trivium.model.huggingface import load_language_model
from trivium.text.chat import prompt_ids, training_sequence
from trivium.text.tokenizer import Tokenizer
from trivium.training.device import choose_device
from trivium.training.scoring import total_nats

if TYPE_CHECKING:
    from trivium.stages.context import StageContext

SCORING_TOKENS = 16384  # of one forward pass over the references


def evaluate_stage(context: "StageContext", model: Path) -> dict[str, Any]:
    """The content of STAGE/evaluation.json for the model directory ``model`` (its form: docs/architecture.md)."""
    device = choose_device(context.recipe)
    tokenizer = Tokenizer.load(model)
    decoder = load_language_model(model, device=device).eval()
    precision = torch.bfloat16 if getattr(context.config, "precision", None) == "bfloat16" else None
    engine = Engine(decoder, decode=tokenizer.decode, autocast=precision)
    examiner = Examiner(
        context.recipe, engine, tokenizer, device, chat=getattr(context.config, "kind", None) != "pretrain"
    )
    tasks = {name: examiner.examine(name, task) for name, task in context.recipe.evaluation.items()}
    return {"stage": context.name, "tasks": tasks}


@dataclass
class Examiner:
    """One model and its engine, going through tasks. ``chat``: whether it has been taught to converse."""

    recipe: RecipeConfig
    engine: Engine
    tokenizer: Tokenizer
    device: torch.device
    chat: bool = True

    def examine(self, name: str, task: TaskConfig) -> dict[str, Any]:
        """The evaluation of one task; infrastructure errors are counted apart and in no share."""
        prompts, dropped, too_long = self._prompts(name, task)
        judge = Judge(task)
        try:
            rollouts = [group[0] for group in self._sample(prompts, task, samples=0)]
            verdicts = judge.verdicts([(prompt, rollout) for prompt, rollout in zip(prompts, rollouts, strict=True)])
            few = prompts[: task.sample_limit]
            sampled, right = self._sampled(few, task, judge) if task.samples else (dict(NOT_SAMPLED), {})
            constant = constant_baseline(prompts, task) if task.baseline else None
        finally:
            judge.close()
        judged = [index for index, verdict in enumerate(verdicts) if verdict.status != "infra_error"]
        return {
            "n": len(judged),
            **right_shares(prompts, verdicts, judged, task.threshold),
            **mean_score([verdicts[index].score for index in judged], self.recipe.seed),
            "status": status_counts(verdicts),
            "response_length": fmean(rollout.length for rollout in rollouts),
            "truncated_share": fmean(rollout.finish_reason == "length" for rollout in rollouts),
            **({"turns": fmean(rollout.turns for rollout in rollouts)} if task.environment else {}),
            "duplicates_dropped": dropped,
            "too_long": too_long,
            "asked": "chat" if self.chat or task.plain_prompt is None else "plain",
            **sampled,
            "bits_per_byte": self._bits_per_byte(prompts) if task.references else None,
            "baseline": constant,
            "teacher": teacher_numbers(prompts) if task.threshold is not None else None,
            **slot_numbers(task, prompts, rollouts),
            "results": [
                _result(prompt, rollout, verdict, right.get(index)) | self._said(rollout)
                for index, (prompt, rollout, verdict) in enumerate(zip(prompts, rollouts, verdicts, strict=True))
            ],
        }

    def _prompts(self, name: str, task: TaskConfig) -> tuple[list[Prompt], int, int]:
        """At most ``limit`` prompts that no training stage has seen; how many had been seen, and how many of those
        within the limit are left out since they fill the model's context."""
        found = [prompt for part in sources.prompts(task.prompts, self.recipe) for prompt in part]
        kept, dropped = drop_duplicates(found, _training_records(self.recipe.model_dump_json()))
        if not kept:
            raise UserError(
                f"evaluation.{name}: all {len(found)} prompts also occur in the training data; choose held-out ones"
            )
        kept, context = kept[: task.limit], self.engine.decoder.config.context_length
        plain = None if self.chat else task.plain_prompt
        fit = [prompt for prompt in kept if len(self._tokens(prompt, plain)) < context]
        if not fit:
            raise UserError(
                f"evaluation.{name}: no prompt leaves room in the model's context of {context} tokens; choose shorter "
                "ones, or a model with a longer context"
            )
        return fit, dropped, len(kept) - len(fit)

    def _sample(self, prompts: Sequence[Prompt], task: TaskConfig, samples: int) -> list[list[Rollout]]:
        """Greedy answers (``samples`` 0: one a prompt), or that many sampled ones a prompt."""
        plain = None if self.chat else task.plain_prompt
        settings = SamplingSettings(
            temperature=task.sampling.temperature if samples else 0.0,
            top_k=task.sampling.top_k,
            top_p=task.sampling.top_p,
            max_new_tokens=task.sampling.max_new_tokens,
            stop_token_ids=(*self.tokenizer.stop_token_ids, self.tokenizer.document_separator_id),
            stop_strings=tuple(task.sampling.stop) if plain is None else ("\n",),
        )
        asked = [(prompt, self._tokens(prompt, plain)) for prompt in prompts]
        numbers = list(range(len(asked)))
        arguments = (
            self.engine,
            self.tokenizer,
            asked,
            samples or 1,
            settings,
            self.recipe.seed,
            "evaluation",
            numbers,
        )
        if task.environment is None:
            return sample_group_rollouts(*arguments)
        from trivium.environments.build import build as build_environment

        environment = build_environment(task.environment)
        try:
            return sample_group_rollouts(
                *arguments,
                environment=environment,
                **task.environment.limits,
            )
        finally:
            environment.close()

    def _said(self, rollout: Rollout) -> dict[str, Any]:
        """Who said what after the prompt, where there was an environment: its words are not the model's."""
        if not rollout.transcript:
            return {}
        pieces = [
            ["model" if own else "environment", self.tokenizer.decode([token for token, _ in part])]
            for own, part in groupby(zip(rollout.completion_tokens, rollout.sampled, strict=True), lambda pair: pair[1])
        ]
        return {"said": [piece for piece in pieces if piece[1]]}

    def _tokens(self, prompt: Prompt, plain: str | None) -> list[int]:
        if plain is None:
            return prompt_ids(self.tokenizer, prompt.messages)
        text = plain.replace("{prompt}", prompt.messages[-1].content)
        return [self.tokenizer.document_start_id, *self.tokenizer.encode(text)]

    def _sampled(
        self, prompts: Sequence[Prompt], task: TaskConfig, judge: "Judge"
    ) -> tuple[dict[str, Any], dict[int, float]]:
        """The numbers of the samples, and by the place of a prompt the share of its samples that are right.

        A prompt with a sample that could not be judged (``infra_error``) is in neither.
        """
        groups = self._sample(prompts, task, task.samples)
        flat = [(prompt, rollout) for prompt, group in zip(prompts, groups, strict=True) for rollout in group]
        found = judge.verdicts(flat)
        answers = iter(found)
        verdicts = [[next(answers) for _ in group] for group in groups]
        whole = {
            index: group
            for index, group in enumerate(verdicts)
            if all(verdict.status != "infra_error" for verdict in group)
        }
        numbers = {
            **sample_numbers(task, list(whole.values()), self.recipe.seed),
            "sampled_status": status_counts(found),
            "sampled_truncated_share": fmean(rollout.finish_reason == "length" for _, rollout in flat),
            "sampled_response_length": fmean(rollout.length for _, rollout in flat),
        }
        right = {index: fmean(is_right(verdict, task.threshold) for verdict in group) for index, group in whole.items()}
        return numbers, right

    def _bits_per_byte(self, prompts: Sequence[Prompt]) -> float | None:
        """Of the reference answers (stop token included) given their prompts, over the bytes of the answers.

        References that do not fit into the context are left out; None if none fits.
        """
        pairs = [(prompt, text) for prompt in prompts for text in _references(prompt)]
        conversations = [Conversation((*prompt.messages, Message("assistant", text))) for prompt, text in pairs]
        sequences = [training_sequence(self.tokenizer, conversation) for conversation in conversations]
        context = self.engine.decoder.config.context_length
        fits = [index for index, sequence in enumerate(sequences) if len(sequence.tokens) <= context]
        byte_count = sum(len(pairs[index][1].encode()) for index in fits)
        with torch.no_grad():
            scored = [sequences[index] for index in fits]
            nats = total_nats(self.engine.decoder, scored, SCORING_TOKENS, self.device) if scored else 0.0
        return bits_per_byte(nats, byte_count) if byte_count else None


@lru_cache(maxsize=2)
def _training_records(recipe: str) -> list[Prompt | Conversation]:
    """What the stages of a recipe (as JSON) learn from, apart from the corpora: demonstrations, labelled answers,
    rankings, and every prompt that is answered to be judged, ranked or revised. What a stage makes has its prompts."""
    config = RecipeConfig.model_validate_json(recipe)
    demonstrations: dict[str, SourceConfig] = {}
    asked: dict[str, SourceConfig] = {}
    labelled: dict[str, SourceConfig] = {}
    ranked: dict[str, RankingSourceConfig] = {}
    for stage in config.stages.values():
        if isinstance(stage, SFTConfig):
            named = [source for source in stage.data if source.source not in config.stages]
            demonstrations |= {source.model_dump_json(): source for source in named}
        elif isinstance(stage, RankConfig | ReviseConfig | DPOConfig | RLConfig):
            asked |= {source.model_dump_json(): source for source in stage.prompts}
        if isinstance(stage, DPOConfig):
            labelled |= {source.model_dump_json(): source for source in stage.labelled}
        if isinstance(stage, DPOConfig | RewardConfig):
            given = [source for source in stage.rankings if source.source not in config.stages]
            ranked |= {source.model_dump_json(): source for source in given}
    records: list[Prompt | Conversation] = []
    records += [item for part in sources.conversations(list(demonstrations.values()), config) for item in part]
    records += [item for part in sources.prompts(list(asked.values()), config) for item in part]
    judged: list[LabelledAnswer | Ranking] = []
    for source in labelled.values():
        with suppress(UserError):  # people may not have judged yet; the stage that learns from it says what is missing
            judged += sources.labelled([source], config)
    for ranking_source in ranked.values():
        with suppress(UserError):
            judged += read_rankings([ranking_source])
    return records + [item.prompt for item in judged]


def _references(prompt: Prompt) -> list[str]:
    if isinstance(prompt.answer, dict) and "references" in prompt.answer:
        return list(prompt.answer["references"])
    return [str(prompt.answer)]


class Judge:
    """The verifier of a task, or where its kind is ``environment`` the score that the environment itself gave."""

    def __init__(self, task: TaskConfig) -> None:
        self.verifier = None if task.verifier.kind == "environment" else build(task.verifier)

    def verdicts(self, items: Sequence[tuple[Prompt, Rollout]]) -> list[Verdict]:
        """In the order of ``items``. A rollout whose tool failed for a reason of ours is not judged at all."""
        whole = [item for item in items if item[1].status != "infra_error"]
        if self.verifier is None:
            found = iter([_outcome(rollout) for _, rollout in whole])
        else:
            found = iter(self.verifier.verdicts([(prompt, rollout.text) for prompt, rollout in whole]))
        return [
            infra_error(rollout.failure) if rollout.status == "infra_error" else next(found) for _, rollout in items
        ]

    def close(self) -> None:
        if self.verifier is not None:
            self.verifier.close()


def _outcome(rollout: Rollout) -> Verdict:
    if rollout.outcome is None:
        return infra_error("the environment gave no score")
    return Verdict(rollout.outcome, "ok", None)


def _result(prompt: Prompt, rollout: Rollout, verdict: Verdict, sampled_right: float | None) -> dict[str, Any]:
    """One line of ``results``: the greedy answer to a prompt, and how many of its samples were right."""
    level = level_of(prompt)
    return {
        "id": prompt.id,
        "task": prompt.task,
        **({} if level is None else {"level": level}),
        "prompt": prompt.messages[-1].content,
        "answer": prompt.answer,
        "response": rollout.text,
        **({"transcript": rollout.transcript, "turns": rollout.turns} if rollout.transcript else {}),
        "finish_reason": rollout.finish_reason,
        "score": verdict.score,
        "status": verdict.status,
        "extracted": verdict.extracted,
        **({"detail": verdict.detail} if verdict.detail else {}),
        **({} if sampled_right is None else {"sampled_right": sampled_right}),
    }
