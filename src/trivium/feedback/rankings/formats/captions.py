"""Cartoon caption contests: mean scores that a crowd gave to captions, each with its standard error (``precision``).

A row has a ``scene`` and ``captions`` (``text``, ``score``, ``precision``, ``votes``). Rankings of a few captions are
drawn from it. Two captions are tied if their scores differ by at most ``errors`` standard errors of the difference,
sqrt(a² + b²). Being that near is not transitive: A may be tied with B and B with C while A stands above C, which no
partition into tiers can say. So a caption is only drawn into a ranking where the ties stay transitive, and every tie
and every order in a ranking holds as measured.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trivium.data.files import Row
from trivium.data.records import Message
from trivium.errors import UserError
from trivium.feedback.rankings.formats import common
from trivium.feedback.rankings.record import Ranking, Response
from trivium.streams import generator

ABOUT = "cartoon caption contests: mean scores with standard errors, drawn into rankings"
OPTIONS: dict[str, Any] = {
    "k": 4,  # captions a ranking
    "tasks": 50,  # rankings a scene; no caption is in two
    "errors": 1.96,  # standard errors of a difference within which captions are tied: 95% of chance lies within
    "seed": 0,
    "wording": "Write a funny caption for this cartoon: {scene}",
    "annotator": "crowd",
    "criterion": "funny",
}


@dataclass(frozen=True)
class Caption:
    text: str
    score: float
    error: float
    metadata: dict[str, Any]


def recognises(row: Mapping[str, Any]) -> bool:
    return {"scene", "captions"} <= set(row)


def read(rows: Iterable[Row], options: Mapping[str, Any]) -> Iterator[Ranking]:
    """Up to ``tasks`` rankings of ``k`` captions a scene; which ones depends on seed and scene alone."""
    for name, least in (("k", 2), ("tasks", 1), ("errors", 0)):
        if options[name] < least:
            raise UserError(f"option {name} of the format captions is {options[name]}; it is at least {least}")
    if "{scene}" not in options["wording"]:
        raise UserError(f"option wording of the format captions is {options['wording']!r}; put {{scene}} into it")
    for row in rows:
        scene = common.text(row, "scene")
        prompt = common.of_messages((Message("user", options["wording"].replace("{scene}", scene)),))
        for captions in _drawn(_captions(row), scene, options):
            ranking = Ranking(
                prompt=prompt,
                responses=tuple(Response(caption.text, metadata=caption.metadata) for caption in captions),
                tiers=tiers(captions, options["errors"]) or (),
                annotator=options["annotator"],
                criterion=options["criterion"],
                metadata={} if row.get("contest") is None else {"contest": row["contest"]},
            )
            yield common.checked(ranking, row.where)


def _captions(row: Row) -> list[Caption]:
    """The captions of a scene; of equal texts the first, which the file ranks highest."""
    found: dict[str, Caption] = {}
    for number, entry in enumerate(common.listed(row, "captions")):
        where = f"{row.where}, caption {number}"
        if not isinstance(entry, dict):
            common.refuse(where, "captions", "an object with text, score and precision", entry)
        caption = Row(entry, where)
        text = common.text(caption, "text")
        score = common.number(common.required(caption, "score"), where, "score")
        error = common.number(common.required(caption, "precision"), where, "precision")
        if error < 0:
            common.refuse(where, "precision", "a standard error, which is not negative", error)
        metadata = {key: entry[key] for key in ("score", "precision", "votes") if key in entry}
        found.setdefault(text, Caption(text, score, error, metadata))
    return list(found.values())


def _drawn(captions: list[Caption], scene: str, options: Mapping[str, Any]) -> Iterator[list[Caption]]:
    """Groups of captions whose ties are transitive, by going through the captions in a random order."""
    random = generator(options["seed"], "caption contests", scene)
    waiting = [captions[number] for number in random.permutation(len(captions))]
    for _ in range(options["tasks"]):
        group: list[Caption] = []
        left: list[Caption] = []
        for number, caption in enumerate(waiting):
            if len(group) == options["k"]:
                left += waiting[number:]
                break
            fits = tiers([*group, caption], options["errors"]) is not None
            (group if fits else left).append(caption)
        if len(group) < 2:
            return
        waiting = left
        yield group


def tiers(captions: list[Caption], errors: float) -> tuple[int, ...] | None:
    """Tiers of captions by score with ties within ``errors`` standard errors; None if the ties are not transitive.

    >>> tiers([Caption("a", 1.5, 0.1, {}), Caption("b", 2.0, 0.1, {}), Caption("c", 1.6, 0.1, {})], 1.96)
    (1, 0, 1)
    """
    order = sorted(range(len(captions)), key=lambda number: -captions[number].score)

    def tied(a: int, b: int) -> bool:
        difference = abs(captions[a].score - captions[b].score)
        return difference <= errors * math.hypot(captions[a].error, captions[b].error)

    result = [0] * len(captions)
    for above, below in pairwise(order):
        result[below] = result[above] + (not tied(above, below))
    consistent = all(tied(a, b) == (result[a] == result[b]) for a in order for b in order if a < b)
    return tuple(result) if consistent else None
