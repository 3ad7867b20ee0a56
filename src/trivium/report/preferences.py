"""DPO: what it learned by, where its implicit rewards ended, and how judge and monitors moved over the iterations."""

from typing import Any

from trivium.report.curves import Curve, CurveChart
from trivium.report.loading import Stage, mapping, number
from trivium.report.tables import Table
from trivium.report.wording import MISSING, clean, decimal, signed

# a row of the iterations: heading, and whether it is a count
_COLUMNS = {
    "tasks": ("Prompts", True),
    "pairs": ("Pairs", True),
    "equal": ("Equal, skipped", True),
    "missing": ("No verdict", True),
    "score": ("Mean score", False),
    "gap": ("Gap", False),
    "chosen_length": ("Length, chosen", False),
    "rejected_length": ("Length, rejected", False),
}


def sentence(stage: Stage) -> str:
    """What the last steps say of chosen and rejected answers."""
    ends = {key: _end(stage, key) for key in ("accuracy", "chosen_reward", "rejected_reward")}
    accuracy, chosen, rejected = ends.values()
    if chosen is None or rejected is None:
        return "" if stage.finished else "No preferences have been learned from yet."
    order = f"{decimal(accuracy, 2)} of the pairs are in order" if accuracy is not None else "In the end"
    text = (
        f"At the end of training {order}; the implicit reward of chosen answers is {signed(chosen)} and that of "
        f"rejected ones {signed(rejected)}."
    )
    if chosen < 0 and rejected < 0:
        text += " Both fell: the model has become less likely to write either than its reference."
    return text


# a row of the table of a stage: heading, decimals
_MEASURES = {
    "loss": ("Loss", 3),
    "accuracy": ("Pairs in order (share)", 3),
    "margin": ("Margin of the implicit rewards", 3),
    "chosen_reward": ("Implicit reward of chosen answers", 3),
    "rejected_reward": ("Implicit reward of rejected answers", 3),
    "chosen_log_prob": ("Log-probability of chosen answers", 2),
    "rejected_log_prob": ("Log-probability of rejected answers", 2),
    "chosen_length": ("Length of chosen answers (tokens)", 1),
    "rejected_length": ("Length of rejected answers (tokens)", 1),
    "nll": ("Imitation beside (nats a token)", 3),
    "kl": ("KL to the start (nats a response)", 2),
    "response_length": ("Length of its own answers (tokens)", 1),
}


def way_sentence(stage: Stage) -> str:
    """The loss and what it compares with.

    >>> way_sentence(Stage("dpo", "dpo", "DPO", {"loss": "ipo", "beta": 0.1, "init": "sft"}))
    'The loss is ipo with β 0.1, against sft as the reference.'
    """
    loss, beta = stage.config.get("loss"), number(stage.config.get("beta"))
    if loss is None or beta is None:
        return ""
    alone = stage.config.get("reference") == "none" or (
        stage.config.get("reference") is None and loss in ("simpo", "orpo")
    )
    against = "with no reference" if alone else f"against {clean(stage.config.get('init'), 60)} as the reference"
    imitation = number(stage.config.get("sft_weight")) or (1.0 if loss == "orpo" else 0.0)
    more = f"; the best answers are imitated beside it, with weight {imitation:g}" if imitation else ""
    return f"The loss is {clean(loss, 40)} with β {beta:g}, {against}{more}."


def measures_table(stage: Stage) -> Table | None:
    """How everything measured of preferences moved: the first and the last tenth of the steps, and held out."""
    columns = [_ends(stage, held_out) for held_out in (False, True)]
    rows = []
    for key, (name, digits) in _MEASURES.items():
        found = [column[key] for column in columns if key in column]
        if found:
            cells = [decimal(value, digits) for column in columns for value in column.get(key, (None, None))]
            rows.append([name, *cells])
    header = ["", "Training, at first", "at last", "Held out, at first", "at last"]
    used = [0, *(i for i in range(1, 5) if any(row[i] != MISSING for row in rows))]
    caption = "Training: means over the first and the last tenth of the steps; held out: the first and last validation"
    rows = [[row[i] for i in used] for row in rows]
    return Table(caption, [header[i] for i in used], rows) if rows else None


def _ends(stage: Stage, held_out: bool) -> dict[str, tuple[float, float]]:
    """The first and the last value of each measure."""
    found = {}
    for key in _MEASURES:
        values = _values(stage, key, held_out)
        few = 1 if held_out else max(1, len(values) // 10)
        if values:
            found[key] = (sum(values[:few]) / few, sum(values[-few:]) / few)
    return found


def _values(stage: Stage, key: str, held_out: bool = False) -> list[float]:
    return [
        value
        for row in stage.metrics
        if (row.get("split", "train") != "train") == held_out and (value := number(row.get(key))) is not None
    ]


def _end(stage: Stage, key: str) -> float | None:
    """The mean of a metric over the last tenth of the steps of training."""
    values = _values(stage, key)
    last = values[-max(1, len(values) // 10) :]
    return sum(last) / len(last) if last else None


def _rows(stage: Stage) -> list[dict[str, Any]]:
    """The iterations, and after them what the monitors say of the policy that came out, as far as it was measured."""
    after = mapping(stage.summary.get("after"))
    if not stage.iterations or not mapping(after.get("monitor")):
        return stage.iterations
    last = max(row["iteration"] for row in stage.iterations)
    return [*stage.iterations, {**after, "iteration": last + 1, "came out": True}]


def monitors(stage: Stage) -> list[str]:
    """Names of the monitors of any iteration."""
    return list(dict.fromkeys(str(name) for row in _rows(stage) for name in mapping(row.get("monitor"))))


def iteration_table(stage: Stage) -> Table | None:
    """A row an iteration."""
    rows = _rows(stage)
    used = [key for key in _COLUMNS if any(number(row.get(key)) is not None for row in rows)]
    names = monitors(stage)
    body = []
    for row in rows:
        cells = [_whole(row.get(key)) if _COLUMNS[key][1] else decimal(row.get(key)) for key in used]
        watched = mapping(row.get("monitor"))
        label = "afterwards" if row.get("came out") is True else _whole(row.get("iteration"))
        body.append([label, *cells, *(decimal(watched.get(name)) for name in names)])
    header = ["Iteration", *(_COLUMNS[key][0] for key in used), *(f"“{clean(name, 24)}”" for name in names)]
    caption = "Each iteration: answers of the policy, best against worst by the judge"
    caption += "; in quotation marks, monitors that nothing learns from" if names else ""
    return Table(caption, header, body) if body else None


def _whole(value: Any) -> str:
    found = number(value)
    return MISSING if found is None else decimal(int(found))


def iteration_sentence(stage: Stage) -> str:
    """How the judge's gap and the monitors moved from the first iteration to the last."""
    rows = stage.iterations
    if not rows:
        return ""
    if len(rows) == 1:
        return f"One iteration, in which the judge’s gap between best and worst is {decimal(rows[0].get('gap'))}."
    text = f"Over {len(rows)} iterations the judge’s gap between best and worst goes {_way(rows, 'gap')}"
    watched = [{"value": mapping(row.get("monitor")).get(name)} for name in monitors(stage)[:1] for row in _rows(stage)]
    if watched:
        text += f", and what nothing learns from, “{clean(monitors(stage)[0], 40)}”, {_way(watched, 'value')}"
    return text + "."


def _way(rows: list[dict[str, Any]], key: str) -> str:
    return f"from {decimal(rows[0].get(key))} to {decimal(rows[-1].get(key))}"


def iteration_charts(stage: Stage) -> list[CurveChart]:
    """Gap, lengths and monitors over the iterations."""
    names = monitors(stage)
    plans: list[tuple[str, str, list[tuple[str, tuple[str, ...], int]]]] = [
        ("The judge’s gap", "score of chosen less rejected", [("gap", ("gap",), 2)]),
        ("Length", "mean over the pairs", [("chosen", ("chosen_length",), 3), ("rejected", ("rejected_length",), 0)]),
        (
            "Monitors",
            "mean, nothing learns from them",
            [(clean(name, 40), ("monitor", name), (3, 1, 4, 5, 0)[i % 5]) for i, name in enumerate(names)],
        ),
    ]
    found = []
    for name, unit, parts in plans:
        curves = [Curve(label, points, series) for label, path, series in parts if (points := _points(stage, path))]
        if curves:
            found.append(CurveChart(name, unit, curves, main=True, over="iterations"))
    return found


def _points(stage: Stage, path: tuple[str, ...]) -> list[tuple[float, float]]:
    found = []
    for row in _rows(stage):
        value: Any = row
        for key in path:
            value = mapping(value).get(key)
        if (amount := number(value)) is not None:
            found.append((float(row["iteration"]), amount))
    return sorted(dict(found).items())
