"""An agreement report as tables for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = 30  # annotators, those with most rankings first


def text(report: Mapping[str, Any]) -> str:
    """The report of ``agreement.agreement_report`` in 80 columns or a few more, without colour."""
    # Without markup: names of annotators and criteria may have brackets.
    console = Console(width=110, color_system=None, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(
            f"{report['rankings']} rankings of {report['tasks']} tasks by {report['annotators']} annotators; "
            f"{report['skipped']} skipped, {report['corrected']} corrected"
        )
        console.print(_by_criterion(report))
        console.print(_by_annotator(report["by_annotator"]))
        for between in report["between_kinds"]:
            console.print(
                f"{' and '.join(between['kinds'])}: agreement {_number(between['agreement'])}, kappa "
                f"{_number(between['kappa'])} ({between['comparisons']} comparisons)"
            )
        if report["gold"]["pairs"]:
            console.print(
                f"gold: accuracy {_interval({'estimate': report['gold']['accuracy'], **report['gold']})} over "
                f"{report['gold']['pairs']} pairs of {report['gold']['tasks']} tasks"
            )
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _by_criterion(report: Mapping[str, Any]) -> Table:
    table = _table("criterion", "tasks", "agreement", "ties half", "strict", "tau-b", "W", "alpha", "tied")
    rows = dict(report["by_criterion"])
    if len(rows) > 1:
        rows["all"] = report["all"]
    for name, row in rows.items():
        table.add_row(
            name,
            str(row["tasks"]),
            _interval(row["agreement"]),
            *(_number(row[key]["estimate"]) for key in ("ties_half", "strict", "tau_b", "w")),
            _interval(row["alpha"]["ordinal"]),
            _number(row["tie_share"]),
        )
    return table


def _by_annotator(annotators: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table("annotator", "kind", "rankings", "skipped", "agreement", "ties half", "tau-b", "tied", "gold", "s")
    order = sorted(annotators, key=lambda name: (-annotators[name]["rankings"], name))
    for name in order[:SHOWN]:
        row = annotators[name]
        counts = (row["kind"], str(row["rankings"]), str(row["skipped"]))
        numbers = [_number(row[key]) for key in ("agreement", "ties_half", "tau_b", "tie_share")]
        seconds = "" if row["median_seconds"] is None else f"{row['median_seconds']:.0f}"
        table.add_row(name, *counts, *numbers, _number(row["gold"]["accuracy"]), seconds)
    if len(order) > SHOWN:
        table.add_row(f"{len(order) - SHOWN} more (--json)")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0, overflow="fold")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(value: Mapping[str, float | None]) -> str:
    if value["low"] is None:
        return _number(value["estimate"])
    return f"{value['estimate']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
