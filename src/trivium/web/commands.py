"""``trivium rank``: the ranking page and its annotators. Commands without logic."""

import difflib
from pathlib import Path
from typing import Any

import click

from trivium.cli import _command

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_file = click.Path(path_type=Path)


class _Serving(click.Group):
    """A group that serves when its first argument is none of its commands: ``trivium rank runs/first``."""

    default = "serve"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, "-h", "--help"}:
            if args and not Path(args[0]).exists() and (close := difflib.get_close_matches(args[0], self.commands, 1)):
                raise click.UsageError(f"{args[0]!r} is no command and no store (did you mean {close[0]!r}?)", ctx)
            args = [self.default, *args]
        return super().parse_args(ctx, args)


def _example(text: str) -> str:
    """An epilog that click leaves as it is."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in text.splitlines())


_store = click.option(
    "--store", "place", default="rankings.db", show_default=True, help="File, directory or address of the store."
)
_url = click.option(
    "--url", default="http://127.0.0.1:8000", show_default=True, help="Where the page is served; the link begins so."
)


@click.group(
    "rank",
    cls=_Serving,
    context_settings=_CONTEXT,
    epilog=_example("trivium rank --answers answers.jsonl\ntrivium rank add-annotator mira"),
)
def rank() -> None:
    """Serve the page on which people rank answers, and manage who may.

    `trivium rank [STORE] [OPTIONS]` is short for `trivium rank serve`; its options: `trivium rank serve --help`.
    """


@_command(rank, "serve", "trivium rank runs/first --from-run runs/first")
@click.argument("place", metavar="[STORE]", required=False)
@click.option("--port", default=8000, type=click.IntRange(0, 65535), show_default=True, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on; others than this: no TLS.")
@click.option("--public-url", help="What people open where a reverse proxy stands before the server: https://…")
@click.option("--allow-host", "names", multiple=True, help="Another host name the server answers to.")
@click.option("--answers", multiple=True, type=_file, help="Tasks from this file: a prompt and its responses a line.")
@click.option("--from-run", "run", type=_file, help="Tasks from the rollouts of this run directory.")
@click.option("--stage", help="Which stage's rollouts; default: the last that has some.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many tasks of a run.")
@click.option("--live", "model", help="Sample answers from this model directory while people rank.")
@click.option("--prompts", type=_file, help="What the live model is asked.")
@click.option(
    "--responses", default=4, type=click.IntRange(2, 9), show_default=True, help="Answers a task, of a run or live."
)
@click.option("--temperature", default=1.0, type=click.FloatRange(min=0, min_open=True), show_default=True)
@click.option("--top-p", default=1.0, type=click.FloatRange(min=0, max=1, min_open=True), show_default=True)
@click.option(
    "--max-new-tokens", default=256, type=click.IntRange(min=1), show_default=True, help="Longest live answer."
)
@click.option(
    "--ahead", default=8, type=click.IntRange(min=1), show_default=True, help="Open tasks that live sampling keeps."
)
@click.option("--wanted", default=1, type=click.IntRange(min=1), show_default=True, help="Annotators a task.")
@click.option("--criterion", default="overall", show_default=True, help="What the annotators are asked to judge.")
@click.option("--guidelines", type=_file, help="Text file that the guidelines page shows.")
@click.option(
    "--gold-share", default=0.1, type=click.FloatRange(0, 1), show_default=True, help="Share of gold tasks given out."
)
@click.option(
    "--random-share",
    default=0.2,
    type=click.FloatRange(0, 1),
    show_default=True,
    help="Share of tasks kept apart from active selection.",
)
@click.option(
    "--reward-model",
    "reward_models",
    multiple=True,
    type=_file,
    help="Rank first what its heads disagree on; several: what the models disagree on.",
)
@click.option(
    "--lease",
    default=30.0,
    type=click.FloatRange(min=1),
    show_default=True,
    help="Minutes that a task stays with an annotator.",
)
@click.option(
    "--rate",
    default=600,
    type=click.IntRange(min=1),
    show_default=True,
    help="Requests a minute that a person may send.",
)
@click.option("--seed", default=0, show_default=True, help="Of all random choices.")
def serve_command(place: str | None, **options: Any) -> None:
    """Serve the ranking page of STORE: a .db file, a run directory, or the address of a database.

    Without STORE: rankings.db of the run named with --from-run, else of the working directory. Tasks are added first;
    ones that are there are not added twice.
    """
    from trivium.web.live import LiveSettings
    from trivium.web.serve import TaskSources, serve
    from trivium.web.settings import ServerSettings

    common = {name: options[name] for name in ("responses", "criterion", "wanted")}
    drawn = {name: options[name] for name in ("temperature", "top_p", "max_new_tokens", "ahead", "seed")}
    live = LiveSettings(options["model"], **common, **drawn) if options["model"] else None
    named = {name: options[name] for name in ("answers", "run", "stage", "prompts", "limit", "reward_models")}
    kept = {name: options[name] for name in ("host", "port", "public_url", "names", "guidelines", "seed")}
    settings = ServerSettings(
        **kept,
        gold_share=options["gold_share"],
        random_share=options["random_share"],
        lease_seconds=round(options["lease"] * 60),
        requests_a_minute=options["rate"],
    )
    place = place or options["run"] or "rankings.db"
    serve(place, TaskSources(**named, **common, live=live), settings, say=click.echo)


@_command(rank, "add-annotator", "trivium rank add-annotator mira")
@click.argument("name")
@click.option("--admin", is_flag=True, help="May see progress, agreement, histories and exports too.")
@_store
@_url
def add_command(name: str, admin: bool, place: str, url: str) -> None:
    """Let NAME in. Prints the link to give to that person: it is shown once, since only its hash is kept."""
    from trivium.feedback.rankings.store import Store
    from trivium.web.serve import link

    with Store.open(place) as store:
        click.echo(link(url, store.add_annotator(name, role="admin" if admin else "annotator")))


@_command(rank, "new-link", "trivium rank new-link mira")
@click.argument("name")
@_store
@_url
def new_link_command(name: str, place: str, url: str) -> None:
    """Print a new link for NAME; the old one stops working."""
    from trivium.feedback.rankings.store import Store
    from trivium.web.serve import link

    with Store.open(place, create=False) as store:
        click.echo(link(url, store.new_token(name)))


@_command(rank, "annotators", "trivium rank annotators --store runs/first")
@_store
def annotators_command(place: str) -> None:
    """Who is in the store: name, kind, role, rankings, and how many gold pairs were right."""
    from trivium.feedback.rankings.store import Store

    with Store.open(place, create=False) as store:
        work = store.progress().by_annotator
        for person in store.annotators():
            done = work.get(person.name)
            gold = f"  gold {done.gold_right:g}/{done.gold_pairs}" if done and done.gold_pairs else ""
            off = "" if person.active else "  revoked"
            count = done.rankings if done else 0
            click.echo(f"{person.name:<24}{person.kind:<10}{person.role:<10}{count:>6} rankings{gold}{off}")


@_command(rank, "revoke", "trivium rank revoke mira")
@click.argument("name")
@_store
def revoke_command(name: str, place: str) -> None:
    """End the access of NAME at once; the rankings stay."""
    from trivium.feedback.rankings.store import Store

    with Store.open(place, create=False) as store:
        store.revoke(name)
    click.echo(f"{name} has no access any more")
