"""The ends of a recipe's branches: what taught each, what it gained over its start and what it cost."""

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from trivium.report.loading import SILENT, Run, Stage, mapping, number
from trivium.report.tables import Table
from trivium.report.verdict import Difference, compare
from trivium.report.wording import MISSING, clean, count, decimal, duration, signed

FROM_FEEDBACK = ("rl", "dpo")  # kinds that do not imitate: a branch begins before the first of them
MOST_PAIRS = 28  # branches against each other, in one table
_LOSSES = {"kto": "KTO", "ipo": "IPO", "simpo": "SimPO", "orpo": "ORPO", "apo_zero": "APO", "apo_down": "APO"}


@dataclass(frozen=True)
class Branch:
    """One end of a run. ``start``: the last model before it that only imitated. ``against``: by task, the paired
    difference to the start. ``kl``: nats a response, to the policy it started from. ``needs``: the stages it uses
    besides those that the start goes back to, and ``needed``: their seconds."""

    stage: Stage
    method: str
    taught_by: str
    start: Stage | None
    against: dict[str, Difference] = field(default_factory=dict)
    kl: float | None = None
    needs: list[Stage] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        return number(self.stage.summary.get("seconds"))

    @property
    def needed(self) -> float:
        return sum(number(stage.summary.get("seconds")) or 0.0 for stage in self.needs)

    @property
    def note(self) -> str:
        """What else must be known of it: not reached, cut, ended early, or an earlier checkpoint kept."""
        if self.stage.state or self.stage.ended:
            return self.stage.state or f"ended early: {clean(self.stage.ended, 200)}"
        kept, steps = (number(self.stage.summary.get(key)) for key in ("kept_step", "steps"))
        return f"step {kept:.0f} of {steps:.0f} kept" if kept is not None and steps and kept < steps else ""


def branches(run: Run) -> list[list[Branch]]:
    """The ends of all branches, in groups with a start in common, the largest first; empty where nothing branches.

    Stages that are not finished are among them. A model that was taught to judge others is none: it is a part of what
    it teaches.
    """
    answering = [stage for stage in run.stages if stage.kind not in SILENT and stage.config]
    inner = {before.name for stage in answering if (before := run.before(stage)) is not None}
    ends = [s for s in answering if s.name not in inner and not (s.kind == "sft" and s.name in run.judges)]
    groups: dict[str, list[Branch]] = {}
    for stage in ends:
        found = _branch(run, stage)
        groups.setdefault(found.start.name if found.start else "", []).append(found)
    shared = [_path(run, stage) for stage in ends]
    if not any(first & second for first, second in combinations(shared, 2)):
        return []
    return sorted(groups.values(), key=len, reverse=True)


def shown_tasks(run: Run) -> list[str]:
    """The main task, and the first other one that is told by a mean score."""
    return run.tasks[:1] + [task for task in run.tasks[1:] if run.scored(task)][:1]


def _path(run: Run, stage: Stage) -> set[str]:
    """The stages that ``stage`` goes back to by ``init``."""
    found: set[str] = set()
    before = run.before(stage)
    while before is not None and before.name not in found:
        found.add(before.name)
        before = run.before(before)
    return found


def _branch(run: Run, stage: Stage) -> Branch:
    start = run.before(stage)
    while start is not None and start.kind in FROM_FEEDBACK and (earlier := run.before(start)) is not None:
        start = earlier
    found = {} if start is None else {task: compare(run, task, start, stage) for task in shown_tasks(run)}
    method, taught_by = teaching(run, stage)
    known = {stage.name} if start is None else {stage.name, start.name} | _everything(run, start)
    needs = [other for other in run.stages if other.name in _everything(run, stage) - known]
    against = {task: difference for task, difference in found.items() if difference is not None}
    return Branch(stage, method, taught_by, start, against, kl_to_start(stage), needs)


def _everything(run: Run, stage: Stage) -> set[str]:
    """Names of all stages that ``stage`` was made from, by whatever way."""
    found: set[str] = set()
    waiting = [stage]
    while waiting:
        for source in run.sources(waiting.pop()):
            if source.name not in found:
                found.add(source.name)
                waiting.append(source)
    return found


def teaching(run: Run, stage: Stage) -> tuple[str, str]:
    """What a stage learns by, in the field's words and in plain ones.

    >>> rl = Stage("rl", "rl", "RL", {"rewards": {"right": {"kind": "numeric"}}})
    >>> teaching(Run(None, "", {}, "", {}, None, [rl], []), rl)
    ('RLVR', 'a verifier')
    """
    if stage.kind == "dpo":
        return _preference_teaching(run, stage)
    if stage.kind != "rl":
        revised = any(source.kind == "revise" for source in run.sources(stage))
        words = {"sft": "revised answers" if revised else "demonstrations", "pretrain": "text"}
        return stage.label, words.get(stage.kind, "")
    found: dict[str, list[str]] = {}
    for part in mapping(stage.config.get("rewards")).values():
        method, by = _reward_teaching(run, mapping(part))
        if by not in found.setdefault(method, []):
            found[method].append(by)
    return " + ".join(found) or "RL", " and ".join(by for several in found.values() for by in several)


def _reward_teaching(run: Run, part: dict[str, Any]) -> tuple[str, str]:
    kind = part.get("kind")
    if kind == "majority":
        return "Majority vote", "its own samples’ vote"
    if kind == "judge":
        return "RLAIF", "a judge’s scores"
    if kind == "environment":
        return "RL", "its environment"
    if kind != "reward_model":
        return "RLVR", "a verifier"
    name = mapping(part.get("options")).get("model")
    model = next((stage for stage in run.stages if stage.name == name), None)
    by_judge = model is not None and _ranked_by_ai(run, model)
    return ("RLAIF", "a reward model of a judge’s rankings") if by_judge else ("RLHF", "a reward model of rankings")


def _ranked_by_ai(run: Run, stage: Stage) -> bool:
    """Whether all rankings that a stage learns from are a judge's, as far as the run made them."""
    ranked = [source for source in run.sources(stage) if source.kind == "rank"]
    return bool(ranked) and all(
        source.summary.get("kinds") == ["ai"] or source.config.get("judge") for source in ranked
    )


def _preference_teaching(run: Run, stage: Stage) -> tuple[str, str]:
    method = _LOSSES.get(str(stage.config.get("loss")), "DPO")
    if stage.config.get("judge"):
        return f"{method}, iterated", "a judge’s pairs of its own answers"
    if stage.config.get("rewards"):
        return f"{method}, iterated", "scored pairs of its own answers"
    if stage.config.get("labelled"):
        return method, "answers labelled good or bad"
    return method, "a judge’s rankings" if _ranked_by_ai(run, stage) else "rankings"


def kl_to_start(stage: Stage) -> float | None:
    """The KL of the model that a stage left to its reference, nats a response; None where it was not measured.

    None too where the reference moved along. Measured by sampling: at the last validation up to the step whose weights
    were kept, else in the last training step up to it that logged it. (Of rl, ``kl`` is a mean over tokens.)
    """
    if stage.config.get("reference") == "moving":
        return None
    key = "kl" if stage.kind == "dpo" else "kl_response"
    kept = number(stage.summary.get("kept_step"))
    kept = number(stage.last_step) if kept is None else kept
    rows = [row for row in stage.metrics if kept is None or (number(row.get("step")) or 0.0) <= kept]
    held_out = [row for row in rows if row.get("split", "train") != "train"]
    for chosen in (held_out, rows):
        values = [value for row in chosen if (value := number(row.get(key))) is not None]
        if values:
            return values[-1]
    return None


def table(run: Run, groups: list[list[Branch]]) -> Table:
    """Every number of the figure, a row a branch, and what else a branch cost."""
    tasks = shown_tasks(run)
    header = ["Branch"]
    for task in tasks:
        header += [_measure(run, task), "Against its start"]
    header += ["KL, nats", "Time, in all", "Trained", "Generated"]
    rows = []
    for branch in (branch for group in groups for branch in group):
        stage = branch.stage
        row = [f"{branch.method}\n{clean(stage.name, 40)}"]
        for task in tasks:
            row += [_value(stage, task), _against(branch, task)]
        tokens = [count(stage.summary.get(key)) for key in ("tokens", "generated")]
        rows.append([*row, decimal(branch.kl, 2), _time(branch), *tokens])
    used = [i for i in range(len(header)) if not i or any(row[i] != MISSING for row in rows)]
    caption = "Every branch, with 95% intervals; the difference to its start is paired, over the same problems"
    return Table(caption, [header[i] for i in used], [[row[i] for i in used] for row in rows])


def notes(groups: list[list[Branch]]) -> list[tuple[str, str]]:
    """For each branch its method, and what taught it and else must be known of it."""
    found = []
    for branch in (branch for group in groups for branch in group):
        words = [f"taught by {branch.taught_by}" if branch.taught_by else "", branch.note]
        found.append((branch.method, "; ".join(word for word in (branch.stage.label, *words) if word)))
    return found


def _time(branch: Branch) -> str:
    own = duration(branch.seconds)
    return own if branch.seconds is None or not branch.needs else f"{own}\n{duration(branch.seconds + branch.needed)}"


def _measure(run: Run, task: str) -> str:
    return f"{clean(task, 24)}: {run.measure(task)}"


def _value(stage: Stage, task: str) -> str:
    numbers = stage.evaluation.get(task, {})
    if number(numbers.get("accuracy")) is None:
        return MISSING
    if number(numbers.get("low")) is None or number(numbers.get("high")) is None:
        return decimal(numbers["accuracy"])
    return f"{decimal(numbers['accuracy'])}\n{decimal(numbers['low'])} to {decimal(numbers['high'])}"


def _against(branch: Branch, task: str) -> str:
    found = branch.against.get(task)
    if found is None:
        return MISSING
    return f"{signed(found.difference, 3)}\n{signed(found.low, 3)} to {signed(found.high, 3)}"


def pairs(run: Run, groups: list[list[Branch]]) -> list[tuple[str, Branch, Branch, Difference]]:
    """(task, the other, the one, their paired difference) of all branches that have a start in common."""
    found = []
    for task in shown_tasks(run):
        for group in groups:
            for first, second in combinations(group, 2):
                if (difference := compare(run, task, first.stage, second.stage)) is not None:
                    found.append((task, first, second, difference))
    return found


def pairs_table(run: Run, groups: list[list[Branch]]) -> Table | None:
    """The branches against each other; None where no two have a start in common."""
    found = pairs(run, groups)
    rows = [
        [
            f"{second.method} against {first.method}",
            clean(task, 40),
            signed(difference.difference, 3),
            f"{signed(difference.low, 3)} to {signed(difference.high, 3)}",
            difference.reading,
        ]
        for task, first, second, difference in found[:MOST_PAIRS]
    ]
    caption = (
        f"Paired differences on the same problems, 95% intervals; {len(rows)} comparisons"
        + (f" of {len(found)}" if len(found) > len(rows) else "")
        + ", not adjusted for their number"
    )
    return Table(caption, ["Comparison", "Task", "Difference", "Interval", "Reading"], rows) if rows else None


def sentences(run: Run, groups: list[list[Branch]]) -> list[str]:
    """What the main task says: each branch against its start, then reinforcement learning against its shortcut."""
    told: list[str] = []
    task = run.tasks[0] if run.tasks else None
    if task is None:
        return told
    for group in groups:
        parts = [f"{_named(b, group)} {_gain(b.against[task])}" for b in group if task in b.against]
        start = group[0].start
        if parts and start is not None:
            value = number(start.evaluation.get(task, {}).get("accuracy"))
            told.append(f"From {start.label} ({decimal(value, 2)} of “{clean(task, 40)}”): {'; '.join(parts)}.")
    for group in groups:
        direct = [branch for branch in group if branch.stage.kind == "dpo"]
        for shortcut in direct[:1]:
            others = [
                (other, found)
                for other in group
                if other.stage.kind == "rl" and (found := compare(run, task, shortcut.stage, other.stage)) is not None
            ]
            parts = [f"{_named(other, group)} {_gain(found)}" for other, found in others]
            if parts:
                told.append(
                    f"Against {_named(shortcut, group)}, the way without reinforcement learning: {'; '.join(parts)}."
                )
    return told


def caption(run: Run, groups: list[list[Branch]]) -> str:
    """How the figure is to be read."""
    text = (
        "Dashed: the model that a branch starts from, which has only imitated; shaded: its interval. Dots: greedy "
        "answers to the same held-out problems. "
    )
    if any(branch.kl is not None for group in groups for branch in group):
        text += "KL: how far the stage has moved the policy from the model that it was given, by sampling. "
    if any(branch.needs for group in groups for branch in group):
        text += (
            "Time: of the stage itself and, paler, of the stages it needs beside its start (rankings, reward models, "
            "a judge), which branches may share. "
        )
    return text + "One run each: the intervals are over problems, not over seeds."


def _named(branch: Branch, group: list[Branch]) -> str:
    """The method, with the stage's name where another branch has the same method."""
    several = sum(other.method == branch.method for other in group) > 1
    return f"{branch.method} ({clean(branch.stage.name, 40)})" if several else branch.method


def _gain(found: Difference) -> str:
    text = f"{signed(found.difference)} ({signed(found.low)} to {signed(found.high)})"
    return text if found.reading != "no clear difference" else f"{text}, no clear difference"
