"""``trivium judge``: rank, audit, log, constitutions. Commands without logic."""

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trivium.cli import _command
from trivium.errors import UserError

if TYPE_CHECKING:
    from trivium.config import JudgeConfig, VerifierConfig
    from trivium.feedback.judges.judge import Judge
    from trivium.feedback.rankings.record import Ranking
    from trivium.feedback.rankings.store import Store

CACHE = "judge.db"


@click.group("judge", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def judge() -> None:
    """Have a model judge answers, and measure what its word is worth.

    A store is a .db file, a directory with rankings.db (such as a run) or an address (postgresql://…).
    """


def _judge_options(command: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option("-m", "--model", required=True, help="Who judges: a model directory, RUN/STAGE, or a server's."),
        click.option(
            "-c", "--constitution", default="general", show_default=True, help="One that is shipped, or a YAML file."
        ),
        click.option(
            "--backend",
            type=click.Choice(["local", "openai", "fake"]),
            default="local",
            show_default=True,
            help="local: in this process; openai: a server with OpenAI's API; fake: prefers the longer, for tests.",
        ),
        click.option("--url", help="openai: address of the server, such as http://127.0.0.1:8000/v1."),
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any other key of a judge."),
        click.option("--seed", default=0, show_default=True, help="Equal seeds draw equal pairs and principles."),
        click.option("--criterion", help="Only under this criterion."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@_command(
    judge,
    "rank",
    "trivium judge rank runs/first -m runs/first/sft -c primer\n"
    "trivium judge rank rankings.db -m my-model --backend openai --url http://127.0.0.1:8000/v1 --set concurrency=16",
)
@click.argument("store", metavar="STORE_OR_RUN")
@_judge_options
def rank_command(store: str, criterion: str | None, **options: Any) -> None:
    """Rank the tasks of a store that this judge has not ranked yet, into the same store.

    What was asked is kept in judge.db beside the store; the same command goes on where it was cut.
    """
    from trivium.feedback.judges.exchange import rank_store
    from trivium.feedback.judges.tables_of_audit import usage_text
    from trivium.feedback.rankings.store import Store
    from trivium.progress import make, visible

    config, shown = _config(**options), make()
    with Store.open(store, create=False) as opened, _build(config, store, options["seed"]) as asked:
        try:
            done = rank_store(asked, opened, config.tie_margin, criterion, shown)
        finally:
            shown.close()
        again = f", {done.again} of them anew since it is asked otherwise now" if done.again else ""
        click.echo(
            visible(f"{opened.url}: {asked.name} ranked {done.ranked} tasks{again}; {done.before} were ranked before")
        )
        if done.without:
            click.echo(visible(f"{done.without} tasks have no verdict ({done.reason}); they are asked about next time"))
        click.echo(usage_text(asked.usage.as_dict()))
        for line in _with_others(opened, asked.name, criterion):
            click.echo(line)
        if not done.ranked and not done.before:
            raise UserError(f"{asked.name} could rank none of {done.without} tasks ({done.reason})")


def _with_others(store: "Store", name: str, criterion: str | None) -> list[str]:
    """How far the judge agrees with people and panels where they ranked the same."""
    from trivium.feedback.rankings.agreement import agreement_report

    given: list[Ranking] = [
        ranking for ranking in store.rankings(criterion=criterion) if ranking.annotator == name or ranking.kind != "ai"
    ]
    return [
        f"{' and '.join(between['kinds'])}: agreement {between['agreement']:.3f}, kappa "
        f"{'-' if between['kappa'] is None else format(between['kappa'], '.3f')} ({between['comparisons']} comparisons)"
        for between in agreement_report(given)["between_kinds"]
        if "ai" in between["kinds"] and between["comparisons"]
    ]


@_command(
    judge,
    "audit",
    "trivium judge audit runs/first -m runs/first/sft -c primer --gold primer\n"
    "trivium judge audit ratings.jsonl -m my-model --backend openai --to-humans undecided.db",
)
@click.argument("source", metavar="STORE_OR_FILE")
@_judge_options
@click.option("--gold", help="Verifier that knows what answers are worth: a kind, or {kind: …, options: …}.")
@click.option("--pairs", default=500, type=click.IntRange(min=2), show_default=True, help="Ask about at most so many.")
@click.option(
    "--ask",
    type=click.Choice(["compare", "score", "both"]),
    default="compare",
    show_default=True,
    help="Which answer is better, or what each is worth.",
)
@click.option("--json", "as_json", is_flag=True, help="All numbers.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write all numbers to this file.")
@click.option("--to-humans", metavar="STORE", help="Put pairs on which the judge contradicts itself into this store.")
def audit_command(
    source: str,
    criterion: str | None,
    gold: str | None,
    pairs: int,
    ask: str,
    as_json: bool,
    out: Path | None,
    to_humans: str | None,
    **options: Any,
) -> None:
    """Measure a judge against people's rankings, or against gold: agreement, biases, calibration.

    Without --gold, rankings of people and panels are the reference, pair by pair.
    """
    from trivium import files
    from trivium.config import RankingSourceConfig
    from trivium.feedback.judges.audit import audit
    from trivium.feedback.judges.pairs import audited_pairs
    from trivium.feedback.judges.tables_of_audit import text
    from trivium.feedback.rankings.sources import read_rankings
    from trivium.progress import make

    config, verifier = _config(**options), _verifier(gold)
    if to_humans is not None and (ask == "score" or not config.both_orders):
        raise UserError("--to-humans sends pairs whose two orders disagree; ask to compare, in both orders")
    kinds = {} if verifier else {"kinds": ["human", "simulated"]}
    rankings = read_rankings([RankingSourceConfig(source=source, criterion=criterion, **kinds)])  # type: ignore[arg-type]
    ways = ["compare", "score"] if ask == "both" else [ask]
    shown = make()
    with _build(config, source, options["seed"]) as asked:
        items, unscored = audited_pairs(rankings, pairs, options["seed"], asked.name, verifier)
        shown.stage("judging", len(items) * len(ways))
        try:
            report, found = audit(asked, items, config, ways, options["seed"], shown.advance)
        finally:
            shown.close()
    report |= {"unscored": unscored}
    if out is not None:
        files.write_json(out, report)
    click.echo(json.dumps(report, indent=2) if as_json else text(report))
    if to_humans is not None:
        _send(to_humans, found, as_json)


def _send(place: str, found: Any, quiet: bool) -> None:
    from trivium.feedback.judges.exchange import send_to_people
    from trivium.feedback.rankings.store import Store

    if not found:
        click.echo("the judge contradicts itself on no pair: nothing to send to people", err=quiet)
        return
    with Store.open(place) as store:
        new = send_to_people(store, found)
        were = f" ({len(found) - new} were there)" if new < len(found) else ""
        click.echo(
            f"{new} pairs on which the judge contradicts itself are now in {store.url}{were}; "
            f"`{shlex.join(['trivium', 'rank', place])}` lets people rank them",
            err=quiet,
        )


@_command(judge, "log", "trivium judge log runs/first --last 3")
@click.argument("file", metavar="FILE_OR_RUN", type=click.Path(path_type=Path))
@click.option("--last", default=10, type=click.IntRange(min=1), show_default=True, help="How many calls to show.")
def log_command(file: Path, last: int) -> None:
    """What a judge was asked and what it answered, from the file of its calls (judge.db of a run)."""
    from trivium.feedback.judges.calls import Calls
    from trivium.feedback.judges.fake import FakeBackend

    path = file / CACHE if file.is_dir() else file
    if not path.is_file():
        raise UserError(f"there is no file {path}; give the judge.db of a run, or the cache of a judge")
    calls = Calls(FakeBackend(), path)  # nothing is asked: only the log is read
    try:
        rows = list(calls.rows(last))
        for row in rows:
            click.echo(_call_text(row) + "\n")
        missing, total = sum(bool(row["missing"]) for row in rows), calls.count()
        tokens = [sum(row[key] for row in rows) for key in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} holds a call that cannot be read; move the file away") from None
    finally:
        calls.close()
    click.echo(f"{len(rows)} of {total} calls, {missing} without a verdict; {tokens[0]} + {tokens[1]} tokens")


def _call_text(row: Mapping[str, Any]) -> str:
    """One call; texts of models and data are hostile, so nothing of them reaches the terminal unescaped."""
    from datetime import UTC, datetime

    from trivium.progress import visible

    request, reply = row["request"], row["reply"]
    when = datetime.fromtimestamp(row["time"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    lines = [
        f"call {row['id']}, {when} UTC, {row['judge']}, {row['prompt_tokens']} + {row['completion_tokens']} tokens"
    ]
    for role, content in request["messages"]:
        lines += [f"  {role}:", *(f"    {line}" for line in str(content).splitlines())]
    if row["missing"]:
        lines.append(f"  no verdict: {row['missing']}")
    elif request["choices"]:
        said = zip(request["choices"], reply["probabilities"], strict=True)
        lines.append("  verdict: " + ", ".join(f"{choice} {probability:.3f}" for choice, probability in said))
    else:
        lines += ["  wrote:", *(f"    {line}" for line in str(reply["text"]).splitlines())]
    return visible("\n".join(lines))


@_command(judge, "constitutions", "trivium judge constitutions\ntrivium judge constitutions general > mine.yaml")
@click.argument("name", required=False)
def constitutions_command(name: str | None) -> None:
    """List the shipped constitutions with their principles, or show one, as a file to start from."""
    from importlib import resources

    from trivium.feedback.judges import constitution
    from trivium.progress import visible

    shipped = constitution.names()
    if name is None:
        for known in shipped:
            principles = constitution.load(known).principles
            click.echo(f"{known:<16}{', '.join(principle.name for principle in principles)}")
        return
    constitution.load(name)  # a file that is none is refused
    folder = resources.files("trivium") / constitution.FOLDER
    place = folder / f"{name}.yaml" if name in shipped else Path(name).expanduser()
    click.echo(visible(place.read_text(encoding="utf-8")), nl=False)


# ---- from options to a judge -----------------------------------------------------------------------------------------


def _config(
    model: str, constitution: str, backend: str, url: str | None, settings: tuple[str, ...], seed: int
) -> "JudgeConfig":
    from pydantic import ValidationError

    from trivium.config import JudgeConfig
    from trivium.preflight import check_judge
    from trivium.recipe import nearest, parse_overrides
    from trivium.schema import explain

    values = parse_overrides(settings)
    own = {"model": "--model", "constitution": "--constitution", "backend": "--backend", "url": "--url"}
    for key in values:
        if key in own:
            raise UserError(f"--set {key} has an option of its own; give {own[key]}")
        if key not in JudgeConfig.model_fields:
            raise UserError(f"--set {key}: a judge has no key {key!r}{nearest(key, list(JudgeConfig.model_fields))}")
    if backend == "local":  # RUN/STAGE/model is RUN/STAGE, whose name tells more
        path = Path(model).expanduser()
        model = str(path.parent) if path.name == "model" and path.is_dir() else model
    try:
        config = JudgeConfig(model=model, constitution=constitution, backend=backend, url=url, **values)  # type: ignore[arg-type]
    except ValidationError as error:
        raise UserError(f"judge: {explain(error, JudgeConfig, 'a judge')}") from None
    check_judge(config, "judge")
    return config


def _build(config: "JudgeConfig", source: str, seed: int) -> "Judge":
    from trivium.feedback.judges.build import build_judge

    return build_judge(config, place=_place, cache=_cache(source), seed=seed, device=_device(config))


def _place(name: str) -> str:
    """The model directory of RUN/STAGE."""
    model = Path(name).expanduser() / "model"
    return str(model) if model.is_dir() else name


def _cache(source: str) -> Path:
    """The file of calls: in the run, or beside the store or file."""
    path = Path(source).expanduser()
    if "://" in source:
        return Path(CACHE)
    return path / CACHE if path.is_dir() else path.parent / CACHE


def _device(config: "JudgeConfig") -> str:
    if config.backend != "local":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _verifier(text: str | None) -> "VerifierConfig | None":
    """``primer``, or ``{kind: regex, options: {pattern: x}}``."""
    if text is None:
        return None
    from pydantic import ValidationError

    from trivium.config import VerifierConfig
    from trivium.feedback.verifiers import build
    from trivium.schema import explain
    from trivium.strict_yaml import parse_yaml

    value = parse_yaml(text, "--gold")
    try:
        config = VerifierConfig.model_validate(value if isinstance(value, dict) else {"kind": text})
        build(config).close()
    except ValidationError as error:
        raise UserError(f"--gold: {explain(error, VerifierConfig, 'a verifier')}") from None
    except UserError as error:
        raise UserError(f"--gold: {error}") from None
    return config
