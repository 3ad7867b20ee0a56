"""Critique and revise: a model answers, a judge says what is wrong and writes a better answer; they become data of sft.

The supervised half of Bai et al., *Constitutional AI*, 2022, arXiv 2212.08073, section 3.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trivium import files
from trivium.config import ReviseConfig
from trivium.data.records import Message, Prompt
from trivium.errors import UserError
from trivium.evaluation.intervals import Interval, bootstrap_mean, paired_bootstrap
from trivium.feedback.judges.base import Answer, Pair, Written
from trivium.feedback.judges.build import build_judge
from trivium.feedback.judges.judge import Judge
from trivium.feedback.rankings.formats.native import written
from trivium.feedback.rankings.record import Response
from trivium.preflight import check_revise
from trivium.stages.answers import Answers, verified
from trivium.stages.context import StageContext, load_start
from trivium.training import distributed
from trivium.training.device import choose_device


@dataclass
class Revised:
    """One answer on its way: ``steps`` are the critiques and revisions so far, ``missing`` why there is no more."""

    prompt: Prompt  # with its reference answer, for the gold score alone
    first: str
    steps: list[tuple[Written, Written]] = field(default_factory=list)
    missing: str = ""
    kept: bool = False
    gold_first: float | None = None
    gold_revised: float | None = None

    @property
    def asked(self) -> Prompt:
        """What a judge is shown: of the prompt only what was asked, not what would be right."""
        return Prompt(self.prompt.id, self.prompt.messages)

    @property
    def last(self) -> str:
        return self.steps[-1][1].text if self.steps else self.first


def main(context: StageContext) -> dict[str, object]:
    """Run the stage. Returns its summary. What was asked of the judge is kept in its cache, and the answers are drawn
    again as they were, so the same command goes on from where it was cut."""
    config: ReviseConfig = context.config
    check_revise(config, context.name)
    began = time.perf_counter()
    device = choose_device(context.recipe)
    items = answered(context, device)
    numbers: dict[str, object] = {}
    if distributed.is_main():
        cache, seed = context.directory.parent / "judge.db", context.recipe.seed
        with build_judge(config.judge, place=context.place, cache=cache, seed=seed, device=device) as judge:
            for number in range(config.rounds):
                revise(judge, [item for item in items if not item.missing], number)
            check_any(items, context, judge)
            choose(judge, [item for item in items if not item.missing], config)
            usage = judge.usage.as_dict()
        gold = measure(context, [item for item in items if item.steps and not item.missing])
        write(context, items)
        numbers = describe(items, judge.name, gold) | {"usage": usage}
    distributed.barrier()
    return {"seconds": round(time.perf_counter() - began, 2), **numbers}


def answered(context: StageContext, device: Any) -> list[Revised]:
    """The model's first answer to each of the prompts."""
    config: ReviseConfig = context.config
    decoder, tokenizer = load_start(context, config.init, device)
    answers = Answers(context, config.prompts, config.sampling, config.slots, tokenizer)
    asked = answers.asked(0, config.tasks, decoder.config.context_length)
    groups = answers.sampled(decoder.eval(), asked, 1, context.name)
    return [Revised(prompt, group[0].text) for (prompt, _), group in zip(asked, groups, strict=True)]


def revise(judge: Judge, items: Sequence[Revised], number: int) -> None:
    """One round: what the last text of each lacks under a newly drawn principle, and a text without that."""
    answers = [Answer(item.asked, item.last) for item in items]
    critiques = judge.critique(answers, number)
    revisions = judge.revise(answers, critiques, number)
    for item, critique, revision in zip(items, critiques, revisions, strict=True):
        # one that is missing later leaves no half revision: the prompt is dropped with what it had
        item.missing = critique.missing or revision.missing or ("" if revision.text.strip() else "the text is empty")
        if not item.missing:
            item.steps.append((critique, revision))


def check_any(items: Sequence[Revised], context: StageContext, judge: Judge) -> None:
    reasons = Counter(item.missing for item in items if item.missing)
    if sum(reasons.values()) == len(items):
        reason, number = reasons.most_common(1)[0]
        raise UserError(
            f"{context.name}: {judge.name} revised none of {len(items)} answers ({number} times: {reason}); take "
            f"another judge, or shorten the constitution or the prompts, and run again"
        )


def choose(judge: Judge, items: Sequence[Revised], config: ReviseConfig) -> None:
    """Which revisions become data: all, or those that the judge prefers to the first answer. One that it gives no
    verdict on is missing."""
    if config.keep == "all":
        for item in items:
            item.kept = True
        return
    found = judge.compare([Pair(item.asked, item.last, item.first) for item in items])
    for item, comparison in zip(items, found, strict=True):
        item.missing = comparison.missing
        item.kept = comparison.probability is not None and comparison.probability > 0.5


def measure(context: StageContext, items: Sequence[Revised]) -> dict[str, Any] | None:
    """What first answers and revisions are worth by ``config.gold``, over those that are kept and could be judged
    both: means and their difference with paired bootstrap intervals over prompts. None where no gold score is known."""
    config: ReviseConfig = context.config
    if config.gold is None or not items:
        return None
    for name in ("first", "last"):
        texts = [(item.prompt, Response(getattr(item, name))) for item in items]
        for item, score in zip(items, verified(context, "gold", config.gold, texts), strict=True):
            setattr(item, "gold_first" if name == "first" else "gold_revised", score)
    pairs = [
        (item.gold_first, item.gold_revised)
        for item in items
        if item.kept and item.gold_first is not None and item.gold_revised is not None
    ]
    if not pairs:
        return None
    first, revised = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    seed = context.recipe.seed
    return {
        "n": len(pairs),
        "first": interval(bootstrap_mean(first, seed)),
        "revised": interval(bootstrap_mean(revised, seed)),
        "difference": interval(paired_bootstrap(first, revised, seed)),
    }


def interval(found: Interval) -> dict[str, float]:
    return dict(found._asdict())


def write(context: StageContext, items: Sequence[Revised]) -> None:
    """revisions.jsonl, all that happened; conversations.jsonl, what sft reads. UserError if nothing is kept."""
    files.write_text(context.directory / "revisions.jsonl", "".join(f"{written(row(item))}\n" for item in items))
    kept = [item for item in items if item.kept]
    if not kept:
        missing = sum(bool(item.missing) for item in items)
        raise UserError(
            f"{context.name}: the judge prefers none of {len(items)} revisions to the first answers ({missing} are "
            f"missing); set {context.name}.keep to all, or take another judge or constitution"
        )
    conversations = [(*item.prompt.messages, Message("assistant", item.last)) for item in kept]
    text = "".join(f"{written({'messages': [told(message) for message in messages]})}\n" for messages in conversations)
    files.write_text(context.directory / "conversations.jsonl", text)


def row(item: Revised) -> dict[str, Any]:
    values: dict[str, Any] = {
        "prompt": {"id": item.prompt.id, "messages": [told(message) for message in item.prompt.messages]},
        "first": item.first,
        "steps": [
            {"principle": critique.principle, "critique": critique.text, "revision": revision.text}
            for critique, revision in item.steps
        ],
        "kept": item.kept,
    }
    optional = {"missing": item.missing or None, "gold_first": item.gold_first, "gold_revised": item.gold_revised}
    return values | {name: value for name, value in optional.items() if value is not None}


def told(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def describe(items: Sequence[Revised], judge: str, gold: dict[str, Any] | None) -> dict[str, object]:
    kept, missing = sum(item.kept for item in items), sum(bool(item.missing) for item in items)
    said = f"{len(items)} answers revised by {judge}, {kept} conversations"
    if gold is not None:
        change = gold["difference"]
        said += (
            f"; gold {gold['first']['estimate']:.3f} to {gold['revised']['estimate']:.3f}, "
            f"{change['estimate']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"
        )
    return {"told": said, "tasks": len(items), "conversations": kept, "missing": missing, "gold": gold}
