"""Rows of the reasoning-gym package: its generators, our splits.

Its data sets have no splits; here a problem belongs to one by a hash of its question. An entry is carried as the Python
literal that it is (``entry`` in the metadata, a string), since its metadata holds tuples, sets and integer keys, which
JSON would change and a scorer would then misread.
"""

import ast
import hashlib
import logging
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from pydantic import Field

from trivium.config import Strict
from trivium.errors import UserError
from trivium.options import checked
from trivium.procedural.base import SPLITS, split_of
from trivium.streams import stream_key

LOG = logging.getLogger("trivium.data")
PACKAGE = "reasoning_gym"
# Data sets that cannot be used, and why.
UNSUPPORTED = {
    "composite": "it mixes others; name those as sources of their own",
}
_TRIES = 100  # for a row of a split, before the data set is taken to hold no more


class Options(Strict):
    """The options of a source of kind reasoning_gym."""

    config: dict[str, Any] = Field(default_factory=dict, description="keys of the data set's own configuration")
    rows: int = Field(1000, ge=1, le=10**6, description="rows of this split; fewer where there are no more problems")
    seed: int = Field(0, ge=0, description="other rows of the same kind: added to the recipe's seed")
    level: int = Field(1, description="what the rows' metadata say as their level, for a curriculum over sources")
    marker: str | None = Field("####", min_length=1, description="stands before the answer; null: the answer alone")
    instructions: bool = Field(True, description="each prompt says where the answer goes")
    dataset: str = Field("", description="set from the source's part")


def version() -> str:
    """The installed version, for the fingerprint of what was read; UserError where there is none."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise _missing() from None


def _missing() -> UserError:
    return UserError("reasoning_gym: the package is not installed; pip install 'trivium[reasoning-gym]'")


def names() -> list[str]:
    """The data sets that can be used."""
    try:
        from reasoning_gym.factory import DATASETS  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise _missing() from None
    return sorted(set(DATASETS) - set(UNSUPPORTED))


def settings(part: str | None, options: Mapping[str, Any]) -> Options:
    """The options of a source, checked; ``part`` names the data set. Raises UserError, also for a missing package."""
    known = names()
    if part in UNSUPPORTED:
        raise UserError(f"reasoning_gym: the data set {part} is not supported: {UNSUPPORTED[part]}")
    if part not in known:
        near = ", ".join(name for name in known if part and part[:3] in name) or ", ".join(known[:8]) + ", …"
        raise UserError(f"reasoning_gym: part names a data set, and there is no {part!r}; choose from {near}")
    if "dataset" in options:
        raise UserError("reasoning_gym: there is no option 'dataset'; the source's part names the data set")
    found = checked(Options, {**options, "dataset": part}, "reasoning_gym")
    if reserved := {"seed", "size"} & set(found.config):
        raise UserError(f"reasoning_gym: config.{min(reserved)} is set by the source; use the option seed or rows")
    _create(found, 0, 1)
    return found


def _create(options: Options, seed: int, size: int) -> Any:
    import reasoning_gym  # type: ignore[import-untyped,import-not-found,unused-ignore]

    try:
        return reasoning_gym.create_dataset(options.dataset, seed=seed, size=size, **options.config)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"reasoning_gym: config of {options.dataset} is refused: {error}") from None


def rows(kind: str, split: str, options: Options, seed: int) -> Iterator[dict[str, Any]]:
    """Rows as those of ``trivium.procedural.rows``; ``metadata`` has ``level``, ``key``, ``dataset``, ``config`` and
    ``entry``. For demonstrations and corpus, only problems with a solution, which is given without working.

    Raises UserError, at the call, for an unknown split, and on the way for an entry that is no plain data.
    """
    if split not in SPLITS:
        raise UserError(f"reasoning_gym: there is no split {split!r}; choose from {', '.join(SPLITS)}")
    return _rows(kind, split, options, seed)


def _rows(kind: str, split: str, options: Options, seed: int) -> Iterator[dict[str, Any]]:
    start = stream_key(seed, PACKAGE, options.dataset, options.seed) % 2**31
    made = _create(options, start, options.rows * _TRIES)
    seen: set[str] = set()
    count = failures = place = 0
    while count < options.rows and failures < _TRIES and place < len(made):
        entry = plain(made[place])
        place += 1
        key = hashlib.blake2b(str(entry["question"]).encode(), digest_size=16).hexdigest()
        wanted = split_of(f"{PACKAGE}/{options.dataset}", key) == split and key not in seen
        if not wanted or (kind != "problems" and entry["answer"] is None):
            failures += 1
            continue
        failures = 0
        seen.add(key)
        count += 1
        yield _row(kind, key, entry, options)
    if count < options.rows:
        LOG.warning(
            "reasoning_gym (%s): %s gave no more than %d of the %d rows asked for",
            split,
            options.dataset,
            count,
            options.rows,
        )


def plain(value: Any) -> Any:
    """``value`` with numpy's scalars and other subclasses of numbers and strings as what they are equal to."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and type(value) in (list, tuple, set, frozenset):
        return type(value)(plain(item) for item in value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value.item() if hasattr(value, "item") else value


def _row(kind: str, key: str, entry: dict[str, Any], options: Options) -> dict[str, Any]:
    question, answer = str(entry["question"]), entry["answer"]
    prompt = question
    if options.instructions:
        told = f"End with {options.marker} and the answer." if options.marker else "Say the answer and nothing else."
        prompt = f"{question}\n{told}"
    asked = {"role": "user", "content": prompt}
    if kind != "problems":
        said = f"{options.marker} {answer}" if options.marker else str(answer)
        if kind == "corpus":
            return {"text": f"{prompt}\n{said}"}
        return {"messages": [asked, {"role": "assistant", "content": said}], "task": options.dataset}
    literal = repr(entry)
    try:
        same = ast.literal_eval(literal) == entry
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise UserError(f"reasoning_gym: an entry of {options.dataset} is no plain data, so it cannot be scored apart")
    return {
        "id": key[:16],
        "messages": [asked],
        "answer": None if answer is None else str(answer),
        "task": options.dataset,
        "metadata": {
            "level": options.level,
            "key": key,
            "dataset": options.dataset,
            "config": options.config,
            "entry": literal,
        },
    }
