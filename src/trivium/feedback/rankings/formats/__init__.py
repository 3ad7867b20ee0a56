"""Rankings in the forms of others: one module a format, named in FORMATS.

A module has ``ABOUT`` (one line), ``OPTIONS`` (names and defaults), ``recognises(row)`` and ``read(rows, options)``,
which yields rankings and raises UserError with file, line and field of what is wrong. Some also write.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from types import ModuleType
from typing import Any

from trivium.data.files import Row
from trivium.errors import UserError
from trivium.feedback.rankings.formats import captions, hh, native, oasst, rankme, rewardbench, trl
from trivium.feedback.rankings.record import Ranking

# In the order in which a row is tried: the more particular form first.
FORMATS: dict[str, ModuleType] = {
    "trivium": native,
    "rankme": rankme,
    "oasst": oasst,
    "captions": captions,
    "rewardbench": rewardbench,
    "trl": trl,
    "hh": hh,
}


def read(rows: Iterator[Row], name: str | None = None, options: Mapping[str, Any] | None = None) -> Iterator[Ranking]:
    """Rankings of rows in the format ``name``; None: the one that recognises the first row.

    Raises:
        UserError: no format knows the fields, an option is unknown, or a row is not what the format has.
    """
    first = next(rows, None)
    if first is None:
        return
    name = name or tell(first)
    module = FORMATS[name]
    given = dict(options or {})
    for option, value in given.items():
        if option not in module.OPTIONS:
            known = ", ".join(module.OPTIONS) or "none"
            raise UserError(f"{first.where}: the format {name} has no option {option!r}: its options are {known}")
        default = module.OPTIONS[option]
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
            raise UserError(
                f"{first.where}: option {option} of the format {name} is {value!r}; "
                f"give {'a number' if isinstance(default, int | float) else 'a text'} such as {default!r}"
            )
    for ranking in module.read(chain([first], rows), {**module.OPTIONS, **given}):
        yield ranking.with_id()


def tell(row: Row) -> str:
    """The name of the format whose fields a row has."""
    for name, module in FORMATS.items():
        if module.recognises(row):
            return name
    raise UserError(
        f"{row.where}: the fields ({', '.join(map(str, row)) or 'none'}) are of no known form of rankings; the formats "
        f"are {', '.join(FORMATS)}: name one, or bring the rows into one of these forms"
    )
