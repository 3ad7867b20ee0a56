"""RankME (Novikova, Dušek and Rieser, 2018): magnitudes that raters gave to the texts of several systems.

A row has ``criterion``, ``rater``, ``mr`` (the meaning representation), ``responses``, ``systems``, ``magnitudes``
(higher is better) and ``batch``. Tiers go by magnitude, equal magnitudes are tied. The prompt is worded as the adapter
``e2e`` words it, so policies and reward models read the same text. A task is the same batch, criterion, representation
and responses: the batches asked in different ways (all criteria at once, or one at a time), so they stay apart.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trivium.data import e2e
from trivium.data.files import Row
from trivium.data.records import Message, Prompt
from trivium.feedback.rankings.formats import common
from trivium.feedback.rankings.record import Ranking, Response, tiers_from_scores

ABOUT = "RankME: magnitudes for the texts of several systems"
OPTIONS: dict[str, Any] = {"batch": ""}
# One batch shortens the name of its criterion.
_CRITERIA = {"inf": "informativeness", "nat": "naturalness", "qual": "quality"}


def recognises(row: Mapping[str, Any]) -> bool:
    return {"mr", "responses", "magnitudes"} <= set(row)


def read(rows: Iterable[Row], options: Mapping[str, Any]) -> Iterator[Ranking]:
    """One ranking a row; option ``batch`` keeps the rows of one batch."""
    for row in rows:
        batch = str(row.get("batch") or "")
        if options["batch"] in ("", batch):
            yield _ranking(row, batch)


def _ranking(row: Row, batch: str) -> Ranking:
    texts = common.texts(row, "responses")
    magnitudes = [common.number(value, row.where, "magnitudes") for value in common.listed(row, "magnitudes")]
    if len(magnitudes) != len(texts):
        common.refuse(row.where, "magnitudes", f"one number for each of {len(texts)} responses", magnitudes)
    systems = common.texts(row, "systems") if row.get("systems") else [""] * len(texts)
    if len(systems) != len(texts):
        common.refuse(row.where, "systems", f"one name for each of {len(texts)} responses", systems)
    criterion = common.text(row, "criterion")
    criterion = _CRITERIA.get(criterion, criterion)
    prompt = _prompt(row)
    content = json.dumps([batch, criterion, prompt.messages[0].content, texts, systems])
    ranking = Ranking(
        prompt=prompt,
        responses=tuple(Response(text, model=system) for text, system in zip(texts, systems, strict=True)),
        tiers=tiers_from_scores(magnitudes),
        annotator=common.text(row, "rater"),
        criterion=criterion,
        task="rankme-" + hashlib.blake2b(content.encode(), digest_size=8).hexdigest(),
        metadata={"magnitudes": magnitudes, **({"batch": batch} if batch else {})},
    )
    return common.checked(ranking, row.where)


def _prompt(row: Row) -> Prompt:
    """As ``e2e.prompts`` has it: the representation is all that the user says."""
    text = common.text(row, "mr")
    try:
        slots = e2e.parse(text)
    except ValueError:
        common.refuse(row.where, "mr", "a meaning representation such as 'name[The Mill], area[riverside]'", text)
    return common.of_messages((Message("user", text),), answer={"mr": slots, "references": []})
