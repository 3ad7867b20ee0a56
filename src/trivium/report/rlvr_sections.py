"""What the report shows of verifiable rewards: alarms, regressions, how answers ended, levels, tasks beside the run."""

from typing import Any

from trivium.comparisons import sentences
from trivium.report.loading import Run, mapping, number
from trivium.report.tables import Table
from trivium.report.wording import MISSING, clean, decimal

STATUSES = {"ok": "Judged", "unparseable": "Not readable", "timeout": "Too slow", "infra_error": "Not judged"}
MOST_ALARMS = 12  # of a stage, in full


def warnings(run: Run) -> list[str]:
    """Sentences for the top of the page: rewards that may be hacked."""
    alarmed = [stage for stage in run.stages if stage.alarms]
    return [
        f"{stage.label}: {clean(stage.alarms[0]['sentence'], 400)}"
        + (f" ({len(stage.alarms)} alarms in all, below)" if len(stage.alarms) > 1 else "")
        for stage in alarmed
    ]


def regressions(run: Run) -> list[str]:
    """A sentence for each stage and task that certainly got worse, from ``summary.json``."""
    labels = {stage.name: stage.label for stage in run.stages}
    found = run.summary.get("regressions")
    keys = ("difference", "low", "high", "n")
    whole = [
        {
            **entry,
            **{name: labels.get(str(entry[name]), clean(entry[name], 60)) for name in ("stage", "than")},
            "task": clean(entry["task"], 60),
        }
        for entry in (found if isinstance(found, list) else [])
        if isinstance(entry, dict)
        and all(number(entry.get(key)) is not None for key in keys)
        and {"task", "stage", "than", "how", "measure"} <= entry.keys()
    ]
    return [f"{text}." for text in sentences(whole)]


def alarms(run: Run) -> list[dict[str, Any]]:
    """Stages whose alarm was raised, with every sentence and the step it was raised in."""
    found = []
    for stage in run.stages:
        if not stage.alarms:
            continue
        rows = [
            [decimal(entry.get("step")), clean(entry.get("sign", MISSING), 60), clean(entry["sentence"], 600)]
            for entry in stage.alarms[:MOST_ALARMS]
        ]
        table = Table(f"Signs that {stage.label}’s reward is being hacked", ["Step", "Sign", "What was seen"], rows)
        found.append({"label": stage.label, "table": table, "left": len(stage.alarms) - len(rows)})
    return found


def endings_table(run: Run, task: str) -> Table | None:
    """How the answers of every stage ended: judged, unreadable, too slow, not judged, cut; greedy and sampled."""
    rows = []
    for stage in run.evaluated(task):
        numbers = stage.evaluation[task]
        for name, status, cut in (
            ("greedy", "status", "truncated_share"),
            ("sampled", "sampled_status", "sampled_truncated_share"),
        ):
            counts = mapping(numbers.get(status))
            if not counts:
                continue
            share = number(numbers.get(cut))
            cells = [decimal(int(number(counts.get(key)) or 0)) for key in STATUSES]
            rows.append([f"{stage.label}, {name}", *cells, MISSING if share is None else f"{100 * share:.1f}%"])
    header = ["Answers", *STATUSES.values(), "Cut at the limit"]
    return Table(f"How answers to “{clean(task)}” ended", header, rows) if rows else None


def apart_table(run: Run) -> Table | None:
    """Tasks that were evaluated beside the run's own, a row for each task and stage."""
    rows = []
    tasks = dict.fromkeys(task for stage in run.stages for task in stage.apart)
    for task in tasks:
        for stage in run.stages:
            numbers = stage.apart.get(task)
            if numbers is None:
                continue
            if numbers.get("source") == "lm_eval":
                rows += _metric_rows(task, stage.label, numbers)
            else:
                rows.append([clean(task, 60), stage.label, decimal(int(numbers.get("n") or 0)), *_numbers(numbers)])
    header = ["Task", "Stage", "Problems", "Result", "95% interval"]
    return Table("Evaluated by `trivium eval --tasks`, greedy answers", header, rows) if rows else None


def _numbers(numbers: dict[str, Any]) -> list[str]:
    if number(numbers.get("accuracy")) is not None:
        return [decimal(numbers["accuracy"]), _interval(numbers.get("low"), numbers.get("high"))]
    mean = f"mean score {decimal(numbers.get('score'))}"
    return [mean, _interval(numbers.get("score_low"), numbers.get("score_high"))]


def _metric_rows(task: str, label: str, numbers: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, metric in mapping(numbers.get("metrics")).items():
        value, error = number(mapping(metric).get("value")), number(mapping(metric).get("stderr"))
        bounds = MISSING if value is None or error is None else _interval(value - 1.96 * error, value + 1.96 * error)
        problems = decimal(int(number(numbers.get("n")) or 0))
        rows.append([clean(task, 60), label, problems, f"{clean(name, 40)} {decimal(value)}", bounds])
    return rows


def _interval(low: Any, high: Any) -> str:
    return MISSING if number(low) is None or number(high) is None else f"{decimal(low)} to {decimal(high)}"
