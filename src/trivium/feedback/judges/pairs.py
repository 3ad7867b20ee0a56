"""The pairs of responses on which a judge is measured, and what people or a gold score say of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from trivium.config import VerifierConfig
from trivium.data.records import Prompt
from trivium.errors import UserError
from trivium.feedback.judges.base import Pair
from trivium.feedback.rankings.grouping import by_task, prompt_share
from trivium.feedback.rankings.record import UNRANKED, Ranking, Response
from trivium.feedback.verifiers import build
from trivium.streams import stream_key


@dataclass(frozen=True)
class Item:
    """Two responses to a prompt, in the order in which the judge is given them.

    ``votes``: by annotator, 1 where they put the first above the second, -1 below, 0 for a tie. ``gold``: the same by
    the gold scores; None where there are none.
    """

    prompt: Prompt
    responses: tuple[Response, Response]
    criterion: str
    votes: Mapping[str, int]
    gold: int | None = None

    @property
    def pair(self) -> Pair:
        first, second = self.responses
        return Pair(self.prompt, first.text, second.text)

    @property
    def reference(self) -> Mapping[str, int]:
        """Whom the judge is compared with on this pair: gold alone where it is known, else the annotators."""
        return self.votes if self.gold is None else {"gold": self.gold}


def audited_pairs(
    rankings: Iterable[Ranking], limit: int, seed: int, judge: str, gold: VerifierConfig | None
) -> tuple[list[Item], int]:
    """What an audit asks about (see ``draw_pairs``), with the order by ``gold`` where it is given; and how many pairs
    were left out since gold could not score them. UserError where there is no pair to ask about."""
    items = draw_pairs(rankings, limit, seed, judge=judge, gold=gold is not None)
    if not items:
        raise UserError(
            f"the rankings hold no two different answers to a prompt that anybody but {judge} compared; name rankings "
            "of people or of a panel"
        )
    return (items, 0) if gold is None else with_gold(items, gold)


def draw_pairs(rankings: Iterable[Ranking], limit: int, seed: int, *, judge: str, gold: bool) -> list[Item]:
    """At most ``limit`` pairs of responses whose texts differ, each under one criterion, in a random order of the two.

    One pair of every prompt comes before the second of any, since the pairs of one prompt say much the same. What is
    drawn depends on the seed and the content alone: a larger limit adds pairs to those of a smaller one, so that what
    the judge was asked before is asked no more. ``judge``: the annotator who is measured, whose own rankings are no
    reference. With ``gold``, pairs that nobody ranked are drawn too.
    """
    prompts: dict[float, list[tuple[int, Item]]] = {}
    for group in by_task(ranking for ranking in rankings if ranking.annotator != judge).values():
        share = prompt_share(group[0].prompt)
        prompts.setdefault(share, []).extend(_pairs_of(group, seed, gold))
    ordered = [
        [item for _, item in sorted(pairs, key=lambda pair: pair[0])]
        for _, pairs in sorted(prompts.items(), key=lambda entry: stream_key(seed, "audit/prompt", repr(entry[0])))
    ]
    rounds = max((len(pairs) for pairs in ordered), default=0)
    drawn = [pairs[turn] for turn in range(rounds) for pairs in ordered if turn < len(pairs)]
    return drawn[:limit]


def _pairs_of(group: Sequence[Ranking], seed: int, gold: bool) -> Iterable[tuple[int, Item]]:
    """The pairs of one task, each with the key that orders it among those of its prompt."""
    prompt, responses, criterion = group[0].prompt, group[0].responses, group[0].criterion
    for one, other in combinations(range(len(responses)), 2):
        if responses[one].text == responses[other].text:
            continue
        # ASCII: a text may hold half a surrogate pair, which has no UTF-8
        texts = json.dumps([criterion, responses[one].text, responses[other].text])
        if stream_key(seed, "audit/order", texts) % 2:
            one, other = other, one
        votes = {ranking.annotator: _vote(ranking, one, other) for ranking in group}
        said = {name: vote for name, vote in votes.items() if vote is not None}
        if said or gold:
            item = Item(prompt, (responses[one], responses[other]), criterion, said)
            yield stream_key(seed, "audit/pair", texts), item


def _vote(ranking: Ranking, first: int, second: int) -> int | None:
    a, b = ranking.tiers[first], ranking.tiers[second]
    return None if UNRANKED in (a, b) else int(np.sign(b - a))


def with_gold(items: Sequence[Item], config: VerifierConfig) -> tuple[list[Item], int]:
    """The items with the order of their gold scores, and how many were left out since a score failed.

    Raises:
        UserError: the verifier cannot be built, or scores nothing.
    """
    verifier = build(config)
    scores: dict[str, float | None] = {}
    failure = ""
    try:
        for item in items:
            for response in item.responses:
                key = _key(item, response)
                if key not in scores:
                    verdict = verifier(item.prompt, response.text)
                    scores[key] = None if verdict.status == "infra_error" else verdict.score
                    failure = failure or ("" if scores[key] is not None else verdict.detail)
    finally:
        verifier.close()
    found = []
    for item in items:
        one, other = (scores[_key(item, response)] for response in item.responses)
        if one is not None and other is not None:
            found.append(replace(item, gold=int(np.sign(round(one - other, 9)))))
    if items and not found:
        raise UserError(f"the gold verifier {config.kind} scores none of {len(items)} pairs ({failure}); mend it")
    return found, len(items) - len(found)


def _key(item: Item, response: Response) -> str:
    messages = [message.content for message in item.prompt.messages]
    return json.dumps([messages, repr(item.prompt.answer), response.text])
