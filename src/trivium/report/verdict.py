"""The sentence at the top of the report. It claims only what the intervals carry."""

from dataclasses import dataclass
from typing import Any

from trivium.evaluation.intervals import paired_bootstrap
from trivium.report.judges import sentence as audit_sentence
from trivium.report.loading import Run, Stage, mapping, number
from trivium.report.wording import decimal, signed


@dataclass(frozen=True)
class Difference:
    """Accuracy of ``after`` minus accuracy of ``before`` (labels) on the same problems of one task."""

    task: str
    before: str
    after: str
    difference: float
    low: float
    high: float

    @property
    def reading(self) -> str:
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no clear difference"


def differences(run: Run, task: str) -> list[Difference]:
    """Paired differences of a task: those of the summary, or else computed from the answers that both stages kept."""
    labels = {stage.name: stage.label for stage in run.stages}
    found = []
    entries = mapping(run.summary.get("comparisons")).get(task)
    for entry in filter(lambda entry: isinstance(entry, dict), entries if isinstance(entries, list) else []):
        value, low, high = (number(entry.get(key)) for key in ("difference", "low", "high"))
        before, after = str(entry.get("from")), str(entry.get("to"))
        if value is not None and low is not None and high is not None:
            found.append(Difference(task, labels.get(before, before), labels.get(after, after), value, low, high))
    if found:
        return found
    pairs = [(start, stage) for stage in run.evaluated(task) if (start := run.before(stage, task))]
    computed = [compare(run, task, *pair) for pair in pairs]
    return [difference for difference in computed if difference]


def compare(run: Run, task: str, before: Stage, after: Stage) -> Difference | None:
    """The paired difference from the answers themselves; None where the stages share fewer than two problems."""
    first, second = scores_by_id(run, before, task), scores_by_id(run, after, task)
    shared = sorted(first.keys() & second.keys())
    if len(shared) < 2:
        return None
    seed = int(number(run.recipe.get("seed")) or 0)
    interval = paired_bootstrap([first[i] for i in shared], [second[i] for i in shared], seed)
    return Difference(task, before.label, after.label, *interval)


def results(stage: Stage, task: str) -> dict[str, dict[str, Any]]:
    """The greedy answers of a stage by problem id."""
    rows = stage.evaluation.get(task, {}).get("results")
    return {str(row["id"]): row for row in rows or [] if isinstance(row, dict) and "id" in row}


def right_by_id(run: Run, stage: Stage, task: str) -> dict[str, bool]:
    """Right or wrong by problem id; an answer that the verifier failed to judge is neither."""
    threshold = run.threshold(task)
    return {
        id: (number(row.get("score")) or 0.0) >= threshold
        for id, row in results(stage, task).items()
        if row.get("status") != "infra_error"
    }


def scores_by_id(run: Run, stage: Stage, task: str) -> dict[str, float]:
    """What is averaged over problems: 1 for right and 0 for wrong, or the score of a task without right and wrong."""
    if not run.scored(task):
        return {id: float(right) for id, right in right_by_id(run, stage, task).items()}
    rows = results(stage, task).items()
    return {id: number(row.get("score")) or 0.0 for id, row in rows if row.get("status") != "infra_error"}


def verdict(run: Run, branches_apart: bool = False) -> tuple[str, list[str]]:
    """One sentence, and the sentences that stand below it; ``branches_apart``: the other branches have a place of their
    own on the page, and are not told of here."""
    unfinished = [stage.label for stage in run.stages if not stage.finished and stage.name in _planned(run)]
    below = []
    if unfinished:
        below.append(f"The run is not finished; still to do or cut: {', '.join(unfinished)}.")
    for task in run.tasks[:1]:
        stages = run.evaluated(task)
        if stages:
            sentence, more = _of_task(run, task, stages, not branches_apart)
            return sentence, more + below
    return _of_metrics(run), below


def _planned(run: Run) -> set[str]:
    return set(mapping(run.recipe.get("stages"))) | set(mapping(run.summary.get("stages")))


def _of_metrics(run: Run) -> str:
    for stage in reversed(run.stages):
        if stage.audit:
            return audit_sentence(stage)
        metric = mapping(stage.summary.get("metric"))
        if number(metric.get("value")) is not None:
            name = str(metric.get("name", "its metric")).replace("_", " ")
            return f"{stage.label} ends at {decimal(metric['value'])} {name}; no task has been evaluated."
    return "Nothing has been evaluated yet."


def _of_task(run: Run, task: str, stages: list[Stage], with_others: bool) -> tuple[str, list[str]]:
    last, *others = run.leaves(task)
    before = run.before(last, task)
    numbers = last.evaluation[task]
    accuracy = numbers["accuracy"]
    low, high = number(numbers.get("low")), number(numbers.get("high"))
    steps = [difference for difference in differences(run, task) if difference.after == last.label]
    # The step from the stage it started from says most; the summary may also compare with earlier ones.
    step = next((d for d in steps if before and d.before == before.label), steps[0] if steps else None)
    problems = f"{decimal(int(n))} held-out problems" if (n := number(numbers.get("n"))) else "held-out problems"
    greedy = number(run.first_of(task, "teacher").get("greedy"))
    below = [f"Greedy {run.measure(task)} on {problems} of the task “{task}”."]
    if greedy is not None and low is not None and high is not None:
        sentence = _against_teacher(run, task, last, greedy, (accuracy, low, high))
        if len(stages) > 1 and last.kind != "sft":
            below += _imitation(stages, before, task, greedy)
    elif step:
        sentence = _against_previous(step, accuracy)
        step = None
    else:
        reached = "reaches a mean score of" if run.scored(task) else "answers"
        sentence = f"{last.label} {reached} {decimal(accuracy, 2)} of “{task}”{'' if run.scored(task) else ' right'}."
    if step:
        below.append(
            f"{step.after} against {step.before}, problem by problem: {signed(step.difference)} "
            f"(95% interval {signed(step.low)} to {signed(step.high)})."
        )
    return sentence, below + [_branch(run, task, stage) for stage in others if with_others]


def _branch(run: Run, task: str, stage: Stage) -> str:
    """A sentence for the end of another branch than the one the headline is about."""
    accuracy = stage.evaluation[task]["accuracy"]
    before = run.before(stage, task)
    step = next(
        (d for d in differences(run, task) if before and (d.before, d.after) == (before.label, stage.label)), None
    )
    if before is None or step is None:
        return f"{stage.label} reaches {decimal(accuracy, 2)}."
    return (
        f"{stage.label}, another branch from {before.label}, reaches {decimal(accuracy, 2)}: "
        f"{signed(step.difference)} (95% interval {signed(step.low)} to {signed(step.high)})."
    )


def _against_teacher(run: Run, task: str, last: Stage, greedy: float, found: tuple[float, float, float]) -> str:
    """The teacher's accuracy is known exactly, so the interval of the difference is the model's own, shifted."""
    accuracy, low, high = found
    teacher = run.first_of(task, "teacher")
    best = max(greedy, number(teacher.get("sampled")) or 0.0)  # a claim to beat it must hold for both ways to ask it
    if low > best:
        claim = f"{last.label} beats its teacher"
    elif high < greedy:
        claim = f"{last.label} stays below its teacher"
    else:
        claim = f"{last.label} cannot be told apart from its teacher"
    return (
        f"{claim}: {decimal(accuracy, 2)} against {decimal(greedy, 2)} "
        f"(95% interval of the difference {signed(low - greedy)} to {signed(high - greedy)})."
    )


def _imitation(stages: list[Stage], before: Stage | None, task: str, greedy: float) -> list[str]:
    """The imitator is the one that the headline's stage starts from: another may have had another teacher."""
    imitator = before if before and before.kind == "sft" else None
    imitator = imitator or next((stage for stage in reversed(stages) if stage.kind == "sft"), None)
    if imitator is None:
        return []
    accuracy = imitator.evaluation[task]["accuracy"]
    return [
        f"{imitator.label}, which imitates the teacher, reaches {decimal(accuracy, 2)}: "
        f"{signed(accuracy - greedy)} from the teacher’s ceiling of {decimal(greedy, 2)}."
    ]


def _against_previous(step: Difference, accuracy: float) -> str:
    words = {"better": "is better than", "worse": "is worse than"}.get(step.reading, "cannot be told apart from")
    return (
        f"{step.after} {words} {step.before}: {decimal(accuracy, 2)} against {decimal(accuracy - step.difference, 2)} "
        f"(95% interval of the difference {signed(step.low)} to {signed(step.high)})."
    )
