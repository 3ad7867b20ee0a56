"""Preference pairs as TRL has them: ``prompt``, ``chosen``, ``rejected``.

Each is text, or a list of messages (the conversational form). Without ``prompt``, ``chosen`` and ``rejected`` are whole
conversations, and their common beginning is the prompt.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trivium.data import fields
from trivium.data.files import Row
from trivium.data.records import Message
from trivium.errors import UserError
from trivium.feedback.rankings.formats import common
from trivium.feedback.rankings.record import Ranking, Response

ABOUT = "preference pairs of TRL: prompt, chosen, rejected"
OPTIONS: dict[str, Any] = {"annotator": "trl", "criterion": "overall", "kind": "human"}


def recognises(row: Mapping[str, Any]) -> bool:
    if not {"chosen", "rejected"} <= set(row):
        return False
    return row.get("prompt") is not None or isinstance(row["chosen"], list)


def read(rows: Iterable[Row], options: Mapping[str, Any]) -> Iterator[Ranking]:
    """One ranking of two responses a row."""
    for row in rows:
        if row.get("prompt") is None:
            messages, answers = _split(row)
            prompt = common.of_messages(messages)
        else:
            prompt = common.prompt(row["prompt"], row.where)
            answers = [_answer(row, field) for field in ("chosen", "rejected")]
        ranking = Ranking(
            prompt=prompt,
            responses=tuple(Response(answer) for answer in answers),
            tiers=(0, 1),
            annotator=options["annotator"],
            kind=options["kind"],
            criterion=options["criterion"],
        )
        yield common.checked(ranking, row.where)


def _answer(row: Row, field: str) -> str:
    value = common.required(row, field)
    if isinstance(value, list):
        if len(value) != 1 or not isinstance(value[0], Mapping) or value[0].get("role") != "assistant":
            common.refuse(row.where, field, "one message of the assistant after the prompt", value)
        value = value[0].get("content")
    if not isinstance(value, str):
        common.refuse(row.where, field, "text, or a list with one message of the assistant", value)
    return value


def _split(row: Row) -> tuple[tuple[Message, ...], list[str]]:
    """The messages before the last one, which both conversations must share, and the two last ones."""
    both = [
        fields.conversation(Row({"messages": row[field]}, row.where), {}).messages for field in ("chosen", "rejected")
    ]
    if both[0][:-1] != both[1][:-1] or len(both[0]) < 2:
        common.refuse(
            row.where, "rejected", "a conversation that differs from chosen in its last message alone", row["rejected"]
        )
    return both[0][:-1], [messages[-1].content for messages in both]


def rows(rankings: Iterable[Ranking], conversational: bool = True) -> Iterator[dict[str, Any]]:
    """One row a strict preference; ties, unranked responses and skipped rankings give none.

    ``conversational``: messages throughout; otherwise text, which a prompt of several messages cannot be.

    Raises:
        UserError: a prompt of several messages is asked for as text.
    """
    for ranking in rankings:
        if not ranking.pairs:
            continue
        if conversational:
            prompt: Any = [{"role": m.role, "content": m.content} for m in ranking.prompt.messages]
        elif len(ranking.prompt.messages) == 1:
            prompt = ranking.prompt.messages[0].content
        else:
            raise UserError(
                f"the prompt {ranking.prompt.id} has {len(ranking.prompt.messages)} messages, which text cannot hold: "
                "export in the conversational form"
            )
        for better, worse in ranking.pairs:
            texts = (ranking.responses[better].text, ranking.responses[worse].text)
            chosen, rejected = ([{"role": "assistant", "content": t}] for t in texts) if conversational else texts
            yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}
