"""Which rankings count, which belong to one task, and where a prompt falls when prompts are shared out."""

import hashlib
import json
from collections.abc import Iterable, Sequence

from trivium.data.records import Prompt
from trivium.feedback.rankings.record import Ranking


def effective(rankings: Iterable[Ranking]) -> list[Ranking]:
    """The rankings that no other one corrects, in their order."""
    rankings = list(rankings)
    corrected = {ranking.supersedes for ranking in rankings if ranking.supersedes}
    return [ranking for ranking in rankings if ranking.id not in corrected] if corrected else rankings


def task_key(ranking: Ranking) -> str:
    """The task's id; without one, a hash of criterion, messages and response texts in their order.

    Rankings with the same key rank the same responses under the same numbers.
    """
    if ranking.task:
        return ranking.task
    messages = [[message.role, message.content] for message in ranking.prompt.messages]
    text = json.dumps([ranking.criterion, messages, [response.text for response in ranking.responses]])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def by_task(rankings: Iterable[Ranking]) -> dict[str, list[Ranking]]:
    """Rankings of each task and criterion, one an annotator: who ranked a task twice is taken at the last word.

    Skipped ones are left out: nothing was said. Rankings that share a task's id but not its number of responses go
    apart, since their numbers do not name the same responses.
    """
    groups: dict[str, dict[str, Ranking]] = {}
    for ranking in effective(rankings):
        if ranking.skipped is None:
            key = f"{task_key(ranking)} {ranking.criterion} {len(ranking.responses)}"
            groups.setdefault(key, {})[ranking.annotator] = ranking
    return {key: list(group.values()) for key, group in groups.items()}


def prompt_share(prompt: Prompt) -> float:
    """A number in [0, 1), uniform over prompts, by which they are split: it depends on how the conversation opens.

    The messages up to the user's first decide. So all branches of a conversation tree, and all tasks on one prompt,
    fall on the same side, whatever ids they carry.
    """
    opening: list[list[str]] = []
    for message in prompt.messages:
        opening.append([message.role, message.content])
        if message.role == "user":
            break
    digest = hashlib.blake2b(json.dumps(["portion", opening]).encode(), digest_size=8).digest()
    # 53 bits: a float holds them exactly, so the largest share stays below 1.
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def check_portion(portion: Sequence[float]) -> str:
    """What is wrong with a portion, as a clause; empty if nothing is."""
    start, end = portion
    if not 0 <= start < end <= 1:
        return f"portion is [{start}, {end}]; it goes from one share to a larger, within 0 and 1"
    return ""
