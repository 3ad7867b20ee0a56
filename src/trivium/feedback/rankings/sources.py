"""From a recipe's sources to rankings: stores, files and folders in any of the formats, hub data sets."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from trivium.config import RankingSourceConfig
from trivium.data import files
from trivium.errors import UserError
from trivium.feedback.rankings import formats
from trivium.feedback.rankings.grouping import check_portion, effective, prompt_share
from trivium.feedback.rankings.record import KINDS, Ranking

STORE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
STORE_NAME = "rankings.db"


def read_rankings(configs: Sequence[RankingSourceConfig], base: Path | None = None) -> list[Ranking]:
    """Rankings of all sources, one source after the other, each with an id; corrected ones are left out.

    Skipped rankings and those that call all bad are among them, as they were given; their ``pairs`` tell what they
    order. ``base`` is what relative paths start from (default: the working directory). ``portion`` keeps the prompts
    whose ``grouping.prompt_share`` lies in it.

    Raises:
        UserError: a source cannot be read, a row is not what its format has, or nothing is left of a source.
    """
    return [ranking for config in configs for ranking in _selected(config, base)]


def _selected(config: RankingSourceConfig, base: Path | None) -> list[Ranking]:
    if problem := check_portion(config.portion):
        raise UserError(f"{shown(config.source)}: {problem}")
    start, end = config.portion
    steps: dict[str, Callable[[Ranking], bool]] = {"rankings": lambda ranking: True}
    if config.criterion is not None:
        steps[f"under the criterion {config.criterion!r}"] = lambda ranking: ranking.criterion == config.criterion
    if set(config.kinds) != set(KINDS):
        steps[f"of the kind {' or '.join(config.kinds)}"] = lambda ranking: ranking.kind in config.kinds
    if (start, end) != (0.0, 1.0):
        steps[f"in the portion [{start}, {end}]"] = lambda ranking: start <= prompt_share(ranking.prompt) < end
    passed = dict.fromkeys(steps, 0)
    criteria: set[str] = set()
    kept: list[Ranking] = []
    found: Iterable[Ranking] = read_all(config, base)
    # Only our own records correct each other. The rest is streamed, so that a limit saves reading a large hub data set.
    for ranking in effective(found) if config.adapter in (None, "trivium") else found:
        criteria.add(ranking.criterion)
        for step, keeps in steps.items():
            if not keeps(ranking):
                break
            passed[step] += 1
        else:
            kept.append(ranking)
        if len(kept) == config.limit:
            break
    if not kept and not any(passed.values()) and not criteria:
        raise UserError(f"{shown(config.source)} holds no rankings; rank some first, or check the source")
    if not kept:
        counts = ", ".join(f"{count} {step}" for step, count in passed.items())
        known = f" (its criteria are {', '.join(sorted(criteria)[:8])})" if criteria and config.criterion else ""
        raise UserError(f"{shown(config.source)} gives no rankings: {counts}{known}: ask for less, or check the source")
    return kept


def shown(source: str) -> str:
    """A source as messages show it: without the password of an address."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", source)


def read_all(config: RankingSourceConfig, base: Path | None = None) -> Iterator[Ranking]:
    """Every ranking of a source, corrected ones too, with no filter applied."""
    place = store_place(config.source, base)
    if place is None:
        options = dict(config.options)
        yield from formats.read(_rows(config, base, options.pop("split", None)), config.adapter, options)
        return
    if config.adapter is not None or config.options:
        raise UserError(f"{shown(config.source)} is a store, which needs no adapter and no options: remove them")
    from trivium.feedback.rankings.store import Store  # heavy: the database library

    with Store.open(place, create=False) as store:
        yield from store.rankings(superseded=True)


def store_place(source: str, base: Path | None = None) -> str | Path | None:
    """What ``Store.open`` takes, if the source is a store: an address, a .db file, a directory with rankings.db."""
    if "://" in source:
        return source
    path = (base or Path()) / Path(source).expanduser()
    return path if path.suffix in STORE_SUFFIXES or (path / STORE_NAME).is_file() else None


def _rows(config: RankingSourceConfig, base: Path | None, split: str | None) -> Iterator[files.Row]:
    """Rows of a file, a folder or a hub data set (NAME:PART); the option ``split`` chooses among them."""
    path = (base or Path()) / Path(config.source).expanduser()
    if path.exists():
        return files.read_path(path, split)
    if not files.looks_like_hub_name(config.source):
        raise UserError(
            f"{config.source}: there is no such store, file or folder: check the path (it starts from {path.parent})"
        )
    name, part = files.hub_name_and_part(config.source, None)
    return files.read_hub(name, part, split or "train")
