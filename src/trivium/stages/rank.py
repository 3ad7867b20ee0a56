"""Ranking: a model answers prompts; a panel, a judge, or people in the ranking page say which answers are better."""

import time
from math import comb
from pathlib import Path

from trivium import files
from trivium.config import RankConfig
from trivium.data import sources
from trivium.data.mixture import batch_indices
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.judges.build import build_judge
from trivium.feedback.judges.ranking import rank
from trivium.feedback.rankings.agreement import agreement_report
from trivium.feedback.rankings.contents import NewTask
from trivium.feedback.rankings.formats.native import write_rankings
from trivium.feedback.rankings.record import Ranking, Response
from trivium.feedback.rankings.simulated import Panel
from trivium.feedback.rankings.store import Store, Task
from trivium.generation.engine import Engine
from trivium.generation.rollouts import sample_group_rollouts
from trivium.stages.context import StageContext, load_start
from trivium.stages.sampler import sampling_settings
from trivium.text.chat import prompt_ids
from trivium.training import distributed
from trivium.training.device import choose_device

WRITER_SECONDS = 600.0  # another stage of the run may just be writing thousands of rankings into the same store


def main(context: StageContext) -> dict[str, object]:
    """Run the stage. Returns its summary; a UserError while people have not ranked everything yet."""
    config: RankConfig = context.config
    began = time.perf_counter()
    numbers: dict[str, object] = {}
    if distributed.is_main():
        place = config.store or context.directory.parent / "rankings.db"
        with Store.open(place, busy_seconds=WRITER_SECONDS) as store:
            tasks, asked = put_tasks(context, store)
            told: dict[str, object] = {}
            if config.judge is not None:
                rankings, told = by_judge(context, store, tasks)
            elif config.panel is not None:
                rankings = by_panel(context, store, tasks)
            else:
                rankings = by_people(context, store, tasks)
        write_rankings(context.directory / "rankings.jsonl", rankings)
        numbers = {**describe(rankings, len(tasks), asked["alike"]), "generated": asked["generated"], **told}
    distributed.barrier()
    return {"seconds": round(time.perf_counter() - began, 2), **numbers}


def put_tasks(context: StageContext, store: Store) -> tuple[list[Task], dict[str, int]]:
    """The tasks in the store; how many prompts gave none because all their answers were ``alike``, and how many tokens
    were ``generated``.

    What was sampled once is not sampled again while people are at work: ``tasks.json`` tells.
    """
    config: RankConfig = context.config
    done = files.read_json(context.directory / "tasks.json") or {"tasks": []}
    if found := _found(store, done["tasks"]):
        return found, {"alike": done["alike"], "generated": done.get("generated", 0)}
    answered, generated = sampled_answers(context)
    # what a panel or a judge ranks is not waiting for people too
    wanted = config.rankings_per_task if config.panel is None and config.judge is None else 0
    new = [
        NewTask(prompt, responses, config.criterion, wanted, source=context.name)
        for prompt, responses in answered
        if len(responses) > 1
    ]
    alike = len(answered) - len(new)
    if not new:
        raise UserError(
            f"{context.name}: the answers to each of {alike} prompts are all alike, so there is nothing to rank; raise "
            f"{context.name}.sampling.temperature or {context.name}.responses"
        )
    names = store.add_tasks(new)
    asked = {"alike": alike, "generated": generated}
    files.write_json(context.directory / "tasks.json", {"tasks": names, **asked})
    return _found(store, names), asked


def _found(store: Store, names: list[str]) -> list[Task]:
    """The tasks of these ids in their order; none if one of them is not in the store."""
    known = {task.id: task for task in store.tasks()} if names else {}
    return [known[name] for name in names] if known.keys() >= set(names) else []


def sampled_answers(context: StageContext) -> tuple[list[tuple[Prompt, list[Response]]], int]:
    """Prompts with the distinct answers of the model, each with its origin; the tokens of all answers."""
    config: RankConfig = context.config
    device = choose_device(context.recipe)
    decoder, tokenizer = load_start(context, config.init, device)
    parts = sources.prompts(config.prompts, context.recipe)
    sizes, weights = [len(part) for part in parts], [source.weight for source in config.prompts]
    pairs = batch_indices(context.recipe.seed, context.name, 0, min(config.tasks, sum(sizes)), sizes, weights)
    drawn = [parts[source][number] for source, number in pairs]
    # two files may use the same ids
    prompts = list({(prompt.id, prompt.messages): prompt for prompt in drawn}.values())
    asked = [(prompt, prompt_ids(tokenizer, prompt.messages)) for prompt in prompts]
    for prompt, tokens in asked:
        if len(tokens) >= decoder.config.context_length:
            raise UserError(
                f"{context.name}: the prompt {prompt.id} has {len(tokens)} tokens, the model's context is "
                f"{decoder.config.context_length}; shorten or drop it, or use a model with a longer context"
            )
    settings = sampling_settings(config.sampling, tokenizer)
    engine = Engine(decoder.eval(), slots=config.slots, decode=tokenizer.decode)
    groups = sample_group_rollouts(
        engine, tokenizer, asked, config.responses, settings, context.recipe.seed, context.name, range(len(asked))
    )
    weights_file = Path(context.place(config.init)) / "model.safetensors"
    checkpoint = files.sha256(weights_file) if weights_file.is_file() else ""
    described = config.sampling.model_dump(mode="json")
    answers = []
    for prompt, group in zip(prompts, groups, strict=True):
        distinct = {rollout.text: rollout for rollout in reversed(group)}  # the first of equal texts
        responses = [
            Response(rollout.text, config.init, checkpoint, described, rollout.finish_reason)
            for rollout in group
            if distinct[rollout.text] is rollout
        ]
        answers.append((prompt, responses))
    return answers, sum(rollout.length for group in groups for rollout in group)


def by_panel(context: StageContext, store: Store, tasks: list[Task]) -> list[Ranking]:
    """Every task is ranked by ``rankings_per_task`` annotators of the panel, who take turns. What they said goes into
    the store too; other rankings that it may hold of the same tasks, such as those of an earlier panel, are not ours.
    """
    config: RankConfig = context.config
    assert config.panel is not None
    panel = Panel(config.panel, context.recipe.seed)
    names, wanted = panel.names, config.rankings_per_task
    try:
        rankings = []
        for number, task in enumerate(tasks):
            chosen = [names[(number * wanted + turn) % len(names)] for turn in range(wanted)]
            rankings += [panel.rank(who, task.id, task.prompt, task.responses, task.criterion) for who in chosen]
    finally:
        panel.close()
    failed = [ranking.skipped for ranking in rankings if ranking.skipped]
    if len(failed) == len(rankings):
        raise UserError(f"{context.name}: the panel could rank nothing ({failed[0]}); mend its parts and run again")
    rankings = [ranking.with_id() for ranking in rankings]
    store.add_rankings(rankings)
    return rankings


def by_judge(context: StageContext, store: Store, tasks: list[Task]) -> tuple[list[Ranking], dict[str, object]]:
    """Every task is ranked by the judge; what it said goes into the store too. Also what that cost (``usage``), and how
    many pairs have no verdict (``missing``).

    What the same judge said of a task before, in a run of this stage that was cut, stands: it says nothing twice. A
    task that it had to skip is asked about again.
    """
    config: RankConfig = context.config
    assert config.judge is not None
    with build_judge(
        config.judge,
        place=context.place,
        cache=context.directory.parent / "judge.db",
        seed=context.recipe.seed,
        device=choose_device(context.recipe),
    ) as judge:
        said = {
            ranking.task: ranking
            for ranking in store.rankings(annotators=[judge.name], criterion=config.criterion)
            if ranking.metadata.get("judge") == judge.identity and ranking.skipped is None
        }
        asked = [task for task in tasks if task.id not in said]
        new = [ranking.with_id() for ranking in rank(judge, asked, config.judge.tie_margin)]
        usage = judge.usage.as_dict()
    failed = [ranking.skipped for ranking in new if ranking.skipped]
    if len(failed) == len(tasks):
        raise UserError(
            f"{context.name}: the judge could rank nothing ({failed[0]}); look at {context.name}.judge and run again"
        )
    store.add_rankings(new)
    said |= {ranking.task: ranking for ranking in new}
    rankings = [said[task.id] for task in tasks]
    pairs = sum(comb(len(ranking.responses), 2) for ranking in rankings)
    missing = pairs - sum(len(ranking.preferences) for ranking in rankings)
    return rankings, {"usage": usage, "missing": missing}


def by_people(context: StageContext, store: Store, tasks: list[Task]) -> list[Ranking]:
    """All rankings of the tasks as they were given; UserError while some are still to come."""
    config: RankConfig = context.config
    counts = {task.id: 0 for task in tasks}
    rankings = [ranking for ranking in store.rankings() if ranking.task in counts]
    for ranking in rankings:
        counts[ranking.task] += 1
    ready = sum(count >= config.rankings_per_task for count in counts.values())
    if ready < len(tasks):
        place = config.store or context.directory.parent
        raise UserError(
            f"{context.name}: {ready} of {len(tasks)} prompts are ranked; `trivium rank {place}` opens the page where "
            "people rank the others, and the same command goes on from here afterwards"
        )
    return rankings


def describe(rankings: list[Ranking], tasks: int, alike: int) -> dict[str, object]:
    together = agreement_report(rankings)["all"]
    return {
        "tasks": tasks,
        "alike": alike,
        "rankings": len(rankings),
        "skipped_rankings": sum(ranking.skipped is not None for ranking in rankings),
        "annotators": len({ranking.annotator for ranking in rankings}),
        "kinds": sorted({ranking.kind for ranking in rankings}),
        "pairwise_agreement": together["agreement"]["estimate"],
        "alpha": together["alpha"]["ordinal"]["estimate"],
    }
