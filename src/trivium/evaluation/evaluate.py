"""Evaluate a model on the tasks of a recipe: greedy accuracy, pass@k from samples, bits per byte of references."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from trivium.config import (
    DPOConfig,
    RankConfig,
    RecipeConfig,
    ReviseConfig,
    RLConfig,
    SFTConfig,
    SourceConfig,
    TaskConfig,
)
from trivium.data import sources
from trivium.data.duplicates import drop_duplicates
from trivium.data.records import Conversation, Message, Prompt
from trivium.errors import UserError
from trivium.evaluation.intervals import best_constant_baseline, bootstrap_mean, wilson
from trivium.evaluation.metrics import bits_per_byte, mean_majority_at_k, mean_pass_at_k
from trivium.feedback.verdict import STATUSES, Verdict
from trivium.feedback.verifiers import Verifier, build, slot_report
from trivium.feedback.verifiers.base import parse_number, reference_number
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
        prompts, dropped = self._prompts(name, task)
        verifier = build(task.verifier)
        try:
            rollouts = self._sample(prompts, task, samples=0)
            verdicts = [verifier(prompt, group[0].text) for prompt, group in zip(prompts, rollouts, strict=True)]
            sampled = self._sampled(prompts[: task.sample_limit], task, verifier) if task.samples else {}
            constant = _constant(prompts, task) if task.baseline else None
        finally:
            verifier.close()
        judged = [index for index, verdict in enumerate(verdicts) if verdict.status != "infra_error"]
        answers = [group[0] for group in rollouts]
        return {
            "n": len(judged),
            **_shares(prompts, verdicts, judged, task.threshold),
            **_mean_score([verdicts[index].score for index in judged], self.recipe.seed),
            "status": {status: sum(verdict.status == status for verdict in verdicts) for status in STATUSES},
            "response_length": fmean(rollout.length for rollout in answers),
            "truncated_share": fmean(rollout.finish_reason == "length" for rollout in answers),
            "duplicates_dropped": dropped,
            "asked": "chat" if self.chat or task.plain_prompt is None else "plain",
            "sampled_accuracy": None,
            "pass_at_k": {},
            "majority_at_k": {},
            **sampled,
            "bits_per_byte": self._bits_per_byte(prompts) if task.references else None,
            "baseline": constant,
            "teacher": _teacher(prompts) if task.threshold is not None else None,
            **_slot_numbers(task, prompts, answers),
            "results": [
                {
                    "id": prompt.id,
                    "task": prompt.task,
                    "prompt": prompt.messages[-1].content,
                    "answer": prompt.answer,
                    "response": rollout.text,
                    "score": verdict.score,
                    "status": verdict.status,
                    "extracted": verdict.extracted,
                }
                for prompt, rollout, verdict in zip(prompts, answers, verdicts, strict=True)
            ],
        }

    def _prompts(self, name: str, task: TaskConfig) -> tuple[list[Prompt], int]:
        """At most ``limit`` prompts that no training stage has seen, and how many had been seen."""
        found = [prompt for part in sources.prompts(task.prompts, self.recipe) for prompt in part]
        kept, dropped = drop_duplicates(found, _training_records(self.recipe.model_dump_json()))
        if not kept:
            raise UserError(
                f"evaluation.{name}: all {len(found)} prompts also occur in the training data; choose held-out ones"
            )
        return kept[: task.limit], dropped

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
        numbers = range(len(asked))
        seed = self.recipe.seed
        return sample_group_rollouts(
            self.engine, self.tokenizer, asked, samples or 1, settings, seed, "evaluation", list(numbers)
        )

    def _tokens(self, prompt: Prompt, plain: str | None) -> list[int]:
        if plain is None:
            return prompt_ids(self.tokenizer, prompt.messages)
        text = plain.replace("{prompt}", prompt.messages[-1].content)
        return [self.tokenizer.document_start_id, *self.tokenizer.encode(text)]

    def _sampled(self, prompts: Sequence[Prompt], task: TaskConfig, verifier: Verifier) -> dict[str, Any]:
        groups = self._sample(prompts, task, task.samples)
        verdicts = [
            [verifier(prompt, rollout.text) for rollout in group] for prompt, group in zip(prompts, groups, strict=True)
        ]
        verdicts = [group for group in verdicts if all(verdict.status != "infra_error" for verdict in group)]
        if not verdicts:
            return {}
        right = [[_right(verdict, task.threshold) for verdict in group] for group in verdicts]
        numeric = task.verifier.kind in ("numeric", "primer")
        answers = [[_vote(verdict, numeric) for verdict in group] for group in verdicts]
        sizes = [2**power for power in range(task.samples.bit_length()) if 2**power <= task.samples]
        return {
            "sampled_accuracy": fmean(value for group in right for value in group),
            "pass_at_k": {str(k): mean_pass_at_k(right, k) for k in sizes},
            "majority_at_k": {str(k): mean_majority_at_k(answers, right, k) for k in sizes},
        }

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
    """What the stages of a recipe (as JSON) learn from, apart from the corpora: demonstrations, and every prompt that
    is answered to be judged, ranked or revised. What a stage makes has its own prompts."""
    config = RecipeConfig.model_validate_json(recipe)
    demonstrations: dict[str, SourceConfig] = {}
    asked: dict[str, SourceConfig] = {}
    for stage in config.stages.values():
        if isinstance(stage, SFTConfig):
            named = [source for source in stage.data if source.source not in config.stages]
            demonstrations |= {source.model_dump_json(): source for source in named}
        elif isinstance(stage, RankConfig | ReviseConfig | DPOConfig | RLConfig):
            asked |= {source.model_dump_json(): source for source in stage.prompts}
    records: list[Prompt | Conversation] = []
    records += [item for part in sources.conversations(list(demonstrations.values()), config) for item in part]
    records += [item for part in sources.prompts(list(asked.values()), config) for item in part]
    return records


def _vote(verdict: Verdict, numeric: bool) -> str | None:
    """What a sample votes for: '1,000' and '1000.0' are one number, and what could not be read votes for nothing."""
    if verdict.status != "ok" or verdict.extracted is None:
        return None
    number = parse_number(verdict.extracted) if numeric else None
    return " ".join(verdict.extracted.split()) if number is None else str(number.normalize())


def _right(verdict: Verdict, threshold: float | None) -> bool:
    return threshold is not None and verdict.status == "ok" and verdict.score >= threshold


def _shares(
    prompts: Sequence[Prompt], verdicts: Sequence[Verdict], judged: Sequence[int], threshold: float | None
) -> dict[str, Any]:
    """The share of right answers with its interval, in all and by kind of prompt; null where nothing was judged, or
    where there is no right and wrong."""
    if threshold is None or not judged:
        return {"accuracy": None, "low": None, "high": None, "by_task": {}}
    right = [_right(verdict, threshold) for verdict in verdicts]
    interval = wilson(sum(right[index] for index in judged), len(judged))
    shares = {"accuracy": interval.estimate, "low": interval.low, "high": interval.high}
    return {**shares, "by_task": _by_task(prompts, right, judged)}


def _mean_score(scores: Sequence[float], seed: int) -> dict[str, float | None]:
    if not scores:
        return {"score": None, "score_low": None, "score_high": None}
    interval = bootstrap_mean(scores, seed=seed)
    return {"score": interval.estimate, "score_low": interval.low, "score_high": interval.high}


def _references(prompt: Prompt) -> list[str]:
    if isinstance(prompt.answer, dict) and "references" in prompt.answer:
        return list(prompt.answer["references"])
    return [str(prompt.answer)]


def _constant(prompts: Sequence[Prompt], task: TaskConfig) -> dict[str, Any] | None:
    """Accuracy of guessing among the choices, where there are any, and of the best constant answer."""
    answers = [prompt.answer for prompt in prompts]
    if task.verifier.kind == "numeric":
        answers = [reference_number(answer, task.verifier.options.get("marker", "####")) for answer in answers]
    if any(answer is None or isinstance(answer, dict | list) for answer in answers):
        return None
    best = best_constant_baseline(answers)
    letters = task.verifier.options.get("letters", "ABCD") if task.verifier.kind == "choice" else ""
    return {"chance": 1 / len(letters) if letters else None, "constant": best.accuracy, "constant_answer": best.answer}


def _teacher(prompts: Sequence[Prompt]) -> dict[str, Any] | None:
    """What a perfect imitator of the primer's teacher reaches on these problems."""
    if not all("teacher" in prompt.metadata for prompt in prompts):
        return None
    from trivium.primer import teacher_ceiling

    return teacher_ceiling(prompts)


def _by_task(prompts: Sequence[Prompt], right: Sequence[bool], judged: Sequence[int]) -> dict[str, Any]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for index in judged:
        groups[prompts[index].task].append(right[index])
    named = {}
    for task in sorted(groups) if len(groups) > 1 else ():
        interval = wilson(sum(groups[task]), len(groups[task]))
        named[task] = {
            "n": len(groups[task]),
            "accuracy": interval.estimate,
            "low": interval.low,
            "high": interval.high,
        }
    return named


def _slot_numbers(task: TaskConfig, prompts: Sequence[Prompt], answers: Sequence[Rollout]) -> dict[str, float]:
    """For data-to-text: wrong slots (omitted, contradicted, added) over all slots, in all and by kind."""
    if task.verifier.kind != "slots":
        return {}
    reports = [slot_report(prompt.answer["mr"], rollout.text) for prompt, rollout in zip(prompts, answers, strict=True)]
    total = max(1, sum(report.slots for report in reports))
    kinds = {
        kind: sum(len(getattr(report, kind)) for report in reports) for kind in ("omitted", "contradicted", "added")
    }
    return {
        "slot_error_rate": sum(kinds.values()) / total,
        **{f"slots_{kind}": count / total for kind, count in kinds.items()},
    }
