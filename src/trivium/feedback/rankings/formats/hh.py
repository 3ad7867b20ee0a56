"""Anthropic HH pairs (Bai et al., 2022): two whole dialogues as text, ``chosen`` and ``rejected``.

Turns begin with "\\n\\nHuman:" and "\\n\\nAssistant:". The prompt is the longest common beginning that ends with a turn
of the human; a response is what follows. Mostly that is one turn of the assistant. Where the two dialogues part
earlier, a response goes on with further turns, with their marks, since it is the whole rest that was compared; its
metadata then count them (``turns``), and the option ``later_turns: drop`` leaves such pairs out.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trivium.data.files import Row
from trivium.data.records import Message
from trivium.errors import UserError
from trivium.feedback.rankings.formats import common
from trivium.feedback.rankings.record import Ranking, Response

ABOUT = "Anthropic HH: a chosen and a rejected dialogue as text"
OPTIONS: dict[str, Any] = {"annotator": "hh", "criterion": "overall", "later_turns": "keep"}

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def recognises(row: Mapping[str, Any]) -> bool:
    return "prompt" not in row and all(isinstance(row.get(field), str) for field in ("chosen", "rejected"))


def read(rows: Iterable[Row], options: Mapping[str, Any]) -> Iterator[Ranking]:
    """One ranking of two responses a row."""
    if options["later_turns"] not in ("keep", "drop"):
        raise UserError(f"option later_turns of the format hh is {options['later_turns']!r}; choose keep or drop")
    for row in rows:
        chosen, rejected = turns(row, "chosen"), turns(row, "rejected")
        common_turns = 0
        for number, (a, b) in enumerate(zip(chosen, rejected, strict=False), 1):
            if a != b:
                break
            if a.role == "user":
                common_turns = number
        if not common_turns or common_turns in (len(chosen), len(rejected)):
            common.refuse(
                row.where, "rejected", "a dialogue that begins as chosen does, and then an answer", row["rejected"]
            )
        rests = [chosen[common_turns:], rejected[common_turns:]]
        if options["later_turns"] == "drop" and any(len(rest) > 1 for rest in rests):
            continue
        ranking = Ranking(
            prompt=common.of_messages(chosen[:common_turns]),
            responses=tuple(_response(rest) for rest in rests),
            tiers=(0, 1),
            annotator=options["annotator"],
            criterion=options["criterion"],
        )
        yield common.checked(ranking, row.where)


def turns(row: Row, field: str) -> tuple[Message, ...]:
    """The turns of a dialogue, without the spaces around them; turns of one speaker in a row are joined."""
    dialogue = common.text(row, field).lstrip()
    pieces = _TURN.split(dialogue)
    if pieces[0].strip() or len(pieces) < 3:
        common.refuse(row.where, field, r"a dialogue that begins with '\n\nHuman:'", dialogue)
    result: list[Message] = []
    for name, content in zip(pieces[1::2], pieces[2::2], strict=True):
        role = _ROLES[name]
        if result and result[-1].role == role:
            result[-1] = Message(role, f"{result[-1].content}\n\n{content.strip()}".strip())
        else:
            result.append(Message(role, content.strip()))
    return tuple(result)


def _response(rest: tuple[Message, ...]) -> Response:
    names = {role: name for name, role in _ROLES.items()}
    later = [f"\n\n{names[message.role]}: {message.content}" for message in rest[1:]]
    return Response(rest[0].content + "".join(later), metadata={"turns": len(rest)} if later else {})
