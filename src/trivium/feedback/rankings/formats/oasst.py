"""Open-Assistant conversation trees (Köpf et al., 2023): replies of people, ranked by people.

A row is a tree: ``prompt`` is a message with ``replies``, and so on; or a row is one message with its ``parent_id``.
Every message with two ranked assistant replies or more gives a ranking: the path to it is the prompt. Equal ranks are
tied, a reply without a rank is unranked. What the prompter says next is not a response and is never ranked.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trivium.data.files import Row
from trivium.data.records import Message
from trivium.errors import UserError
from trivium.feedback.rankings.formats import common
from trivium.feedback.rankings.record import UNRANKED, Ranking, Response, dense_tiers

ABOUT = "Open-Assistant trees: ranked replies to every message of a conversation"
# The ranks in a tree are already merged from those of several people, who are not named.
OPTIONS: dict[str, Any] = {"annotator": "open-assistant", "criterion": "overall"}

_ROLES = {"prompter": "user", "assistant": "assistant"}


def recognises(row: Mapping[str, Any]) -> bool:
    prompt = row.get("prompt")
    return (isinstance(prompt, Mapping) and "replies" in prompt) or {"message_id", "role", "text"} <= set(row)


def read(rows: Iterable[Row], options: Mapping[str, Any]) -> Iterator[Ranking]:
    """Rankings of all trees, each from its root down. Rows of single messages are all read before the first comes."""
    flat: list[Row] = []
    for row in rows:
        if "prompt" in row:
            yield from _tree(common.required(row, "prompt"), row.get("message_tree_id"), row.where, options)
        else:
            flat.append(row)
    for root in _joined(flat):
        yield from _tree(root, root.get("message_tree_id"), root.where, options)


def _joined(rows: list[Row]) -> list[Row]:
    """The roots of messages that name their parents, each message with its ``replies``."""
    by_id: dict[str, Row] = {}
    for row in rows:
        name = common.text(row, "message_id")
        if name in by_id:
            raise UserError(
                f"{row.where}: field 'message_id': {name!r} was there before, {by_id[name].where}: repair it"
            )
        by_id[name] = Row({**row, "replies": []}, row.where)
    roots = []
    for row in by_id.values():
        parent = row.get("parent_id")
        if parent is None:
            roots.append(row)
        elif parent not in by_id:
            raise UserError(
                f"{row.where}: field 'parent_id': no message {parent!r} in this source: give the trees whole"
            )
        else:
            by_id[parent]["replies"].append(row)
    return roots


def _tree(root: Any, tree: Any, where: str, options: Mapping[str, Any]) -> Iterator[Ranking]:
    waiting: list[tuple[Any, tuple[Message, ...]]] = [(root, ())]  # no recursion: a tree may be deep
    while waiting:
        node, path = waiting.pop()
        role, content, replies = _message(node, where)
        path = (*path, Message(role, content))
        children = [child for child in replies if not (isinstance(child, Mapping) and child.get("deleted"))]
        waiting.extend((child, path) for child in reversed(children))
        answers = [child for child in children if isinstance(child, Mapping) and child.get("role") == "assistant"]
        tiers = dense_tiers([_rank(child, where) for child in answers])
        if role == "user" and sum(tier != UNRANKED for tier in tiers) > 1:
            ranking = Ranking(
                prompt=common.of_messages(path, metadata={"tree": tree} if tree else {}),
                responses=tuple(_response(child, where) for child in answers),
                tiers=tiers,
                annotator=options["annotator"],
                criterion=options["criterion"],
                metadata={"message": node["message_id"]} if node.get("message_id") else {},
            )
            yield common.checked(ranking, where)


def _message(node: Any, where: str) -> tuple[str, str, list[Any]]:
    if not isinstance(node, Mapping):
        common.refuse(where, "prompt", "a message, an object with role, text and replies", node)
    if node.get("role") not in _ROLES:
        common.refuse(_place(node, where), "role", "prompter or assistant", node.get("role"))
    if not isinstance(node.get("text"), str):
        common.refuse(_place(node, where), "text", "text", node.get("text"))
    replies = node.get("replies") or []
    if not isinstance(replies, list):
        common.refuse(_place(node, where), "replies", "a list of messages", replies)
    return _ROLES[node["role"]], node["text"], replies


def _place(node: Mapping[str, Any], where: str) -> str:
    return f"{where}, message {node['message_id']}" if node.get("message_id") else where


def _rank(node: Mapping[str, Any], where: str) -> int:
    rank = node.get("rank")
    if rank is None:
        return UNRANKED
    if not isinstance(rank, int | float) or isinstance(rank, bool) or rank != rank // 1 or rank < 0:
        common.refuse(_place(node, where), "rank", "a whole number from 0 (best)", rank)
    return int(rank)


def _response(node: Mapping[str, Any], where: str) -> Response:
    _, text, _ = _message(node, where)
    metadata = {"message": node["message_id"]} if node.get("message_id") else {}
    return Response(text, model=str(node.get("model_name") or ""), metadata=metadata)
