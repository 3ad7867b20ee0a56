"""The ranking record itself, one a line of JSONL (``record.to_row``). Reading what was written gives equal records."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trivium import files
from trivium.data.files import Row
from trivium.errors import UserError
from trivium.feedback.rankings.formats import common
from trivium.feedback.rankings.record import Ranking, from_row, to_row

ABOUT = "the ranking record of Trivium, without loss"
OPTIONS: dict[str, Any] = {}


def recognises(row: Mapping[str, Any]) -> bool:
    return {"prompt", "responses", "tiers"} <= set(row)


def read(rows: Iterable[Row], options: Mapping[str, Any]) -> Iterator[Ranking]:
    """Rankings as they were written."""
    for row in rows:
        for field in ("prompt", "responses", "tiers", "annotator"):
            common.required(row, field)
        # Parquet fills the fields that other rows have with None.
        given = {key: value for key, value in row.items() if value is not None}
        try:
            yield from_row(given)
        except (ValueError, TypeError) as error:
            raise UserError(f"{row.where}: {error}: repair the row") from None


def line(ranking: Ranking) -> str:
    """One line of JSON, without the line's end."""
    return written(to_row(ranking))


def written(row: Mapping[str, Any]) -> str:
    """A row as JSON that stays readable where UTF-8 can hold it."""
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 cannot hold: written as an escape
        return json.dumps(row)
    return text


def write_rankings(path: Path, rankings: Iterable[Ranking]) -> None:
    """Write rankings as JSONL, whole or not at all."""
    files.write_text(path, "".join(f"{line(ranking)}\n" for ranking in rankings))
