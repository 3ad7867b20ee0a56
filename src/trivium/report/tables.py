"""The tables of the report as plain rows of text."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from trivium.report.loading import Run, Stage, mapping, number
from trivium.report.wording import MISSING, clean, count, decimal, duration, flatten, short_hash, size, title

# Keys of an evaluation that have their own place; every other number is shown under its own name.
PLACED = {
    "n",
    "accuracy",
    "low",
    "high",
    "score_low",
    "score_high",
    "pass_at_k",
    "majority_at_k",
    "status",
    "baseline",
    "teacher",
    "by_task",
    "by_level",
    "pass_at_k_intervals",
    "sampled_n",
    "sampled_low",
    "sampled_high",
    "sampled_status",
    "sampled_truncated_share",
    "results",
    "scored",
}
ROWS = {
    "sampled_accuracy": "Accuracy, sampled",
    "score": "Mean score",
    "bits_per_byte": "Bits per byte of the references",
    "response_length": "Response length (tokens)",
    "truncated_share": "Truncated responses (share)",
    "duplicates_dropped": "Duplicates of training prompts dropped",
    "too_long": "Prompts left out, too long for the context",
}
MOST_FILES = 2  # of an artifact, in the lineage
_COST_KEYS = {"seconds", "tokens", "steps", "generated", "parameters", "trainable", "memory"}


@dataclass(frozen=True)
class Table:
    """``rows`` start with their header; all cells are text that still has to be escaped."""

    caption: str
    header: list[str]
    rows: list[list[str]]


def evaluation_table(run: Run, task: str) -> Table:
    """All numbers of a task, a column a stage."""
    stages = run.evaluated(task)
    numbers = [stage.evaluation[task] for stage in stages]
    rows = [
        ["Problems", *(decimal(int(entry.get("n") or 0)) for entry in numbers)],
        [f"{title(run.measure(task))}, greedy", *(decimal(entry.get("accuracy")) for entry in numbers)],
        [f"95% interval ({'bootstrap' if run.scored(task) else 'Wilson'})", *(_interval(entry) for entry in numbers)],
    ]
    extra = [flatten({k: v for k, v in entry.items() if k not in PLACED and k not in ROWS}) for entry in numbers]
    for key, name in ROWS.items():
        if any(number(entry.get(key)) is not None for entry in numbers):
            rows.append([name, *(decimal(entry.get(key)) for entry in numbers)])
    for key in dict.fromkeys(key for entry in extra for key in entry):
        rows.append([clean(title(key)), *(decimal(entry.get(key)) for entry in extra)])
    for status in dict.fromkeys(str(s) for entry in numbers for s in mapping(entry.get("status"))):
        counts = [mapping(entry.get("status")).get(status, 0) for entry in numbers]
        rows.append([f"Verdicts “{clean(status)}”", *map(decimal, counts)])
    for line, key, part in (("Teacher, greedy", "teacher", "greedy"), ("Teacher, sampled", "teacher", "sampled")):
        if number(run.first_of(task, key).get(part)) is not None:
            rows.append([line, *[decimal(run.first_of(task, key)[part])] * len(stages)])
    baseline = run.first_of(task, "baseline")
    for part, line in (("constant", _constant(baseline)), ("chance", "Chance")):
        if number(baseline.get(part)) is not None:
            rows.append([line, *[decimal(baseline[part])] * len(stages)])
    return Table("Greedy answers, unless a row says otherwise", ["", *(stage.label for stage in stages)], rows)


def _constant(baseline: dict[str, Any]) -> str:
    answer = baseline.get("constant_answer")
    return "Best constant answer" + (f" (“{clean(answer, 40)}”)" if answer is not None else "")


def _interval(entry: dict[str, Any]) -> str:
    if number(entry.get("low")) is None or number(entry.get("high")) is None:
        return MISSING
    return f"{decimal(entry['low'])} to {decimal(entry['high'])}"


def at_k_table(run: Run, task: str, key: str, name: str) -> Table | None:
    """pass@k or majority@k, a column a k."""
    values = {stage.label: mapping(stage.evaluation.get(task, {}).get(key)) for stage in run.stages}
    values = {label: entry for label, entry in values.items() if entry}
    ks = sorted({int(k) for entry in values.values() for k in entry if str(k).isdigit()})
    if not ks:
        return None
    bounds = {stage.label: mapping(stage.evaluation.get(task, {}).get(f"{key}_intervals")) for stage in run.stages}
    rows = [
        [label, *(decimal(entry.get(str(k))) + _bounds(bounds[label].get(str(k))) for k in ks)]
        for label, entry in values.items()
    ]
    return Table(f"{name} on “{clean(task)}”", ["k", *map(str, ks)], rows)


def _bounds(found: Any) -> str:
    """The interval of a number in parentheses; empty where there is none."""
    if not isinstance(found, list) or len(found) != 2:
        return ""
    return f" ({decimal(found[0], 2)} to {decimal(found[1], 2)})"


def subtask_table(run: Run, task: str, names: list[str], key: str = "by_task") -> Table:
    stages = run.evaluated(task)
    rows = []
    for name in names:
        cells = [mapping(mapping(stage.evaluation[task].get(key)).get(name)) for stage in stages]
        problems = max(int(number(cell.get("n")) or 0) for cell in cells)
        rows.append([clean(name), decimal(problems), *(_with_interval(cell) for cell in cells)])
    return Table(
        f"Accuracy by {'level' if key == 'by_level' else 'sub-task'} of “{clean(task)}”, with 95% intervals",
        ["Level" if key == "by_level" else "Sub-task", "Problems", *(stage.label for stage in stages)],
        rows,
    )


def _with_interval(cell: dict[str, Any]) -> str:
    if number(cell.get("accuracy")) is None:
        return MISSING
    bounds = f" ({decimal(cell.get('low'), 2)} to {decimal(cell.get('high'), 2)})" if "low" in cell else ""
    return decimal(cell["accuracy"], 2) + bounds


def cost_table(run: Run) -> Table:
    """Steps, tokens, time and where a stage ended; the tokens it generated where any stage generates."""
    rows = []
    for stage in run.stages:
        seconds, tokens = number(stage.summary.get("seconds")), number(stage.summary.get("tokens"))
        speed = count(tokens / seconds) if seconds and tokens else MISSING
        generated = count(stage.summary.get("generated"))
        rows.append(
            [stage.label, _steps(stage), count(tokens), generated, duration(seconds), speed, main_metric(stage)]
        )
    header = ["Stage", "Steps", "Tokens", "Generated", "Time", "Tokens a second", "Main metric"]
    used = [i for i in range(len(header)) if header[i] != "Generated" or any(row[i] != MISSING for row in rows)]
    rows = [[row[i] for i in used] for row in rows]
    return Table("What each stage cost and where it ended", [header[i] for i in used], rows)


def _steps(stage: Stage) -> str:
    """The steps that were taken, and of how many where a stage ended early."""
    steps, planned = stage.summary.get("steps", stage.last_step), number(stage.config.get("steps"))
    early = stage.ended and planned is not None and (number(steps) or 0) < planned
    return f"{decimal(steps)} of {decimal(int(planned or 0))}" if early else decimal(steps)


def memory_table(run: Run) -> Table | None:
    """What learns in every stage and what its models held in memory; None where no stage told."""
    rows = []
    for stage in run.stages:
        memory, lora = mapping(stage.summary.get("memory")), mapping(stage.config.get("lora"))
        parameters, trainable = (number(stage.summary.get(key)) for key in ("parameters", "trainable"))
        if not memory or not parameters:
            continue
        share = MISSING if trainable is None else f"{100 * trainable / parameters:.3g}%"
        learns = f"adapters of rank {decimal(lora.get('rank'))}" if lora else "all weights"
        bytes_of = [size(memory.get(key)) for key in ("weights", "gradients", "optimizer")]
        rows.append([stage.label, learns, count(parameters), count(trainable), share, *bytes_of])
    header = ["Stage", "Learns", "Parameters", "Trainable", "Share", "Weights", "Gradients", "Optimiser"]
    caption = "Weights of all models that a stage holds (reference and critic too); activations are not counted"
    return Table(caption, header, rows) if rows else None


def has_adapters(run: Run) -> bool:
    """Whether any stage learned low-rank adapters."""
    return any(mapping(stage.config.get("lora")) and stage.finished for stage in run.stages)


def main_metric(stage: Stage, hint: bool = True) -> str:
    """The metric a stage names as its own; ``hint`` adds which way is better."""
    metric = mapping(stage.summary.get("metric"))
    if number(metric.get("value")) is None:
        return MISSING
    better = f" ({metric['better']} is better)" if hint and metric.get("better") in ("lower", "higher") else ""
    return f"{clean(str(metric.get('name', 'value')).replace('_', ' '))} {decimal(metric['value'])}{better}"


def other_numbers_table(run: Run) -> Table | None:
    """Whatever else the stages told of themselves."""
    found = {}
    for stage in run.stages:
        own = {k: v for k, v in stage.summary.items() if k not in _COST_KEYS | {"evaluation", "metric", "usage"}}
        found[stage.label] = flatten(own)
    keys = list(dict.fromkeys(key for entry in found.values() for key in entry))
    if not keys:
        return None
    rows = [[clean(title(key)), *(decimal(entry.get(key)) for entry in found.values())] for key in keys]
    return Table("All other numbers of the stages", ["", *found], rows)


def lineage_table(lineage: Any) -> Table | None:
    """Artifacts with their parents and hashes; the file may be a list of artifacts or a mapping of them by name."""
    entries = lineage.get("artifacts", lineage) if isinstance(lineage, dict) else lineage
    if isinstance(entries, dict):
        entries = [{"artifact": name, **entry} for name, entry in entries.items() if isinstance(entry, dict)]
    if not isinstance(entries, list):
        return None
    rows = []
    for entry in filter(lambda entry: isinstance(entry, dict), entries):
        name = _first(entry, "artifact", "name", "id", "path", "stage")
        own = _first(entry, "outputs", "hash", "content_hash", "hashes")
        config, code = _first(entry, "config_hash", "config"), _first(entry, "code", "code_version")
        state = (
            entry.get("status") if entry.get("status") != "finished" else None
        )  # worth a column only where it is not
        cells = (state, entry.get("parents"), own, entry.get("inputs"), config, code)
        rows.append([clean(name or MISSING), *map(_hashes, cells)])
    header = ["Artifact", "State", "Made from", "Content", "Inputs", "Configuration", "Code"]
    used = [i for i in range(len(header)) if i == 0 or any(row[i] != MISSING for row in rows)]
    rows = [[row[i] for i in used] for row in rows]
    return Table("Artifacts and what they were made from", [header[i] for i in used], rows) if rows else None


def _first(entry: dict[str, Any], *keys: str) -> Any:
    return next((entry[key] for key in keys if entry.get(key)), None)


def _hashes(value: Any) -> str:
    """Hashes and names in short form, one a line."""
    if value in (None, "", [], {}):
        return MISSING
    if isinstance(value, dict) and "sha256" in value:  # a file: its name says enough, its folder is a machine's own
        return f"{PurePath(clean(value.get('path'))).name} {short_hash(value['sha256'])}"
    if isinstance(value, dict):
        return "\n".join(f"{clean(key)} {_hashes(inner)}" for key, inner in value.items() if inner is not None)
    if isinstance(value, list):
        weights_first = sorted(value, key=lambda item: "safetensors" not in str(item))
        more = [f"and {len(value) - MOST_FILES} more"] if len(value) > MOST_FILES else []
        return "\n".join([*(_hashes(item) for item in weights_first[:MOST_FILES]), *more])
    return short_hash(value)


def environment_table(environment: Any) -> Table | None:
    rows = [[clean(title(key)), clean(value, 300)] for key, value in _leaves(environment)]
    return Table("Where the run was made", ["", ""], rows) if rows else None


def _leaves(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(prefix, ", ".join(map(str, value)) if isinstance(value, list) else value)]
    return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{prefix} {key}".strip())]
