"""``trivium rankings``: import, export, agreement. Commands without logic."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trivium.cli import _command
from trivium.errors import UserError

if TYPE_CHECKING:
    from trivium.config import RankingSourceConfig
    from trivium.feedback.rankings.record import Ranking

FORMATS = ("trivium", "rankme", "oasst", "hh", "captions", "trl", "rewardbench")

_format = click.option(
    "-f", "--format", "adapter", type=click.Choice(FORMATS), help="Form of the rows; default: told by their fields."
)
_options = click.option(
    "-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="Option of the format; may be given often."
)
_criterion = click.option("--criterion", help="Only rankings under this criterion.")


@click.group("rankings", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def rankings() -> None:
    """Import and export rankings, and see how far annotators agree.

    A store is a .db file, a directory with rankings.db (such as a run) or an address (postgresql://…).
    """


@_command(rankings, "import", "trivium rankings import rankings.db rankme_rankings.jsonl --format rankme")
@click.argument("store")
@click.argument("source", metavar="FILE")
@_format
@_options
@_criterion
def import_command(
    store: str, source: str, adapter: str | None, options: tuple[str, ...], criterion: str | None
) -> None:
    """Put the rankings of FILE into STORE.

    FILE is a file, folder, store or hub data set. What is there already is not stored again; rankings that others
    correct come along.
    """
    from trivium.feedback.rankings.sources import read_all, shown
    from trivium.feedback.rankings.store import Store

    found = list(read_all(_config(source, adapter, options)))
    chosen = [ranking for ranking in found if criterion in (None, ranking.criterion)]
    if not chosen:
        names = ", ".join(sorted({ranking.criterion for ranking in found})) or "none"
        raise UserError(
            f"{shown(source)} has no rankings to import; its criteria are {names}: check file and criterion"
        )
    with Store.open(store) as opened:
        new = opened.add_rankings(chosen)
        click.echo(f"{opened.url}: {new} new rankings, {len(chosen) - new} were there")


@_command(rankings, "export", "trivium rankings export runs/first pairs.jsonl --as trl")
@click.argument("source", metavar="STORE_OR_FILE")
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--as",
    "form",
    type=click.Choice(["trivium", "trl", "demonstrations", "csv", "annotators"]),
    default="trivium",
    show_default=True,
    help="trivium: JSONL without loss; trl: preference pairs; demonstrations: edited and top responses as "
    "conversations; csv: a line a response; annotators: CSV, a line an annotator.",
)
@click.option("--plain", is_flag=True, help="trl: text in place of messages.")
@click.option("--edited-only", is_flag=True, help="demonstrations: no top responses.")
@click.option("--no-ties", is_flag=True, help="demonstrations: no top response that shares its tier.")
@_format
@_options
@_criterion
def export_command(source: str, target: Path, form: str, **flags: Any) -> None:
    """Write the rankings of STORE_OR_FILE to OUT."""
    from trivium import files
    from trivium.feedback.rankings.sources import read_all, shown

    config = _config(source, flags["adapter"], flags["options"])
    chosen = [ranking for ranking in read_all(config) if flags["criterion"] in (None, ranking.criterion)]
    lines = list(_lines(chosen, form, flags, source))
    rows = len(lines) - (form in ("csv", "annotators"))
    if not rows:
        raise UserError(
            f"{shown(source)} gives nothing to export as {form}: check the source, its criterion and the form"
        )
    files.write_text(target, "".join(lines))
    click.echo(f"{target}: {rows} rows from {len(chosen)} rankings")


def _lines(chosen: list["Ranking"], form: str, flags: dict[str, Any], source: str) -> Iterator[str]:
    from trivium.feedback.rankings import export
    from trivium.feedback.rankings.formats import native

    if form == "trivium":
        return export.rankings_jsonl(chosen)
    if form == "csv":
        return export.rankings_csv(chosen)
    if form == "annotators":
        return export.annotators_csv(chosen, _gold(source))
    if form == "trl":
        rows = export.preference_pairs(chosen, conversational=not flags["plain"])
    else:
        rows = export.demonstrations(chosen, top=not flags["edited_only"], ties=not flags["no_ties"])
    return (f"{native.written(row)}\n" for row in rows)


@_command(rankings, "agreement", "trivium rankings agreement rankings.db --criterion quality")
@click.argument("source", metavar="STORE_OR_FILE")
@click.option("--json", "as_json", is_flag=True, help="All numbers, with annotators and over time.")
@_format
@_options
@_criterion
def agreement_command(
    source: str, as_json: bool, adapter: str | None, options: tuple[str, ...], criterion: str | None
) -> None:
    """How far annotators agree: by criterion, by annotator, against gold."""
    from trivium.feedback.rankings import tables_of_agreement
    from trivium.feedback.rankings.agreement import agreement_report
    from trivium.feedback.rankings.sources import read_rankings

    config = _config(source, adapter, options, criterion)
    report = agreement_report(read_rankings([config]), _gold(source))
    click.echo(json.dumps(report, indent=2) if as_json else tables_of_agreement.text(report))


def _config(
    source: str, adapter: str | None, options: tuple[str, ...], criterion: str | None = None
) -> "RankingSourceConfig":
    from trivium.config import RankingSourceConfig

    values: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"--option {option!r} has no '='; write it as KEY=VALUE, such as k=4")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return RankingSourceConfig(source=source, adapter=adapter, options=values, criterion=criterion)  # type: ignore[arg-type]


def _gold(source: str) -> dict[str, tuple[int, ...]]:
    """The gold orders of a store; a file has none."""
    from trivium.feedback.rankings.sources import store_place

    place = store_place(source)
    if place is None:
        return {}
    from trivium.feedback.rankings.store import Store

    with Store.open(place, create=False) as store:
        return {task.id: task.gold for task in store.gold_tasks() if task.gold is not None}
