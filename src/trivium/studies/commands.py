"""``trivium study``. A command without logic."""

from pathlib import Path

import click

from trivium.cli import _Command

_EXAMPLE = """\
trivium study
trivium study feedback --seeds 0,1,2 --at-once 2
trivium study my-study.yaml budget.tokens=200000 recipe.rl.steps=20 -d runs/studies/short"""


def _seeds(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter("give whole numbers with commas between, such as 0,1,2") from None
    if len(set(seeds)) < len(seeds):
        raise click.BadParameter("each seed is one run of every arm; name it once")
    return seeds


@click.command("study", cls=_Command, example=_EXAMPLE)
@click.argument("arguments", nargs=-1, metavar="[NAME] [KEY=VALUE]...")
@click.option("--seeds", callback=_seeds, metavar="0,1,2", help="In place of the study's own.")
@click.option("--at-once", type=click.IntRange(min=1), help="Processes at a time; default: as many as cores.")
@click.option("-d", "--directory", type=click.Path(path_type=Path), help="Default runs/studies/NAME.")
@click.option(
    "--nodes", type=click.Path(path_type=Path), help="Where trained stages lie; default: nodes beside the directory."
)
@click.option("--report-only", is_flag=True, help="Run nothing; build the report of what is there anew.")
@click.option("-q", "--quiet", is_flag=True, help="Print only notes and one line a job.")
def study(
    arguments: tuple[str, ...],
    seeds: list[int] | None,
    at_once: int | None,
    directory: Path | None,
    nodes: Path | None,
    report_only: bool,
    quiet: bool,
) -> None:
    """Compare arms over several seeds on one budget; without a NAME, list the shipped studies.

    NAME is a shipped study or a YAML file. KEY=VALUE is of the study, recipe.KEY=VALUE of its recipe. Given again, the
    command skips what is finished and goes on with what was cut.
    """
    from trivium.errors import UserError
    from trivium.studies import analysis, load, runner

    if not arguments:
        for name in load.names():
            click.echo(f"{name:<18}{load.load(name)[0].question}")
        return
    name, overrides = arguments[0], list(arguments[1:])
    if "=" in name:
        raise UserError(f"{name} is no study; name one before its keys, such as trivium study feedback {name}")
    if report_only and (overrides or seeds):
        raise UserError("--report-only shows results as they are; leave out --seeds and KEY=VALUE, or it")
    if report_only:
        place = directory or Path("runs/studies") / load.load(name)[0].name
        if not (place / "results.json").is_file():
            raise UserError(f"{place} has no results.json; run the study first, without --report-only")
        page = runner.report(place)
    else:
        page = runner.run_study(name, overrides, directory, seeds=seeds, at_once=at_once, nodes=nodes, quiet=quiet)
    findings = page.with_name("findings.md")
    if findings.is_file():
        click.echo(findings.read_text(encoding="utf-8").strip())
    click.echo(f"report: {page}")
    if report_only:
        return
    rows = analysis.load(page.parent)["rows"]
    if failed := sum(row["status"] == "failed" for row in rows):
        raise UserError(
            f"{failed} of {len(rows)} rows have failed; the report says why, and the same command tries again"
        )
