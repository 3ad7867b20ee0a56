"""Test prompts that training has seen are no test: they are found by normalised text and dropped."""

import unicodedata
from collections.abc import Iterable, Sequence

from trivium.data.records import Conversation, Message, Prompt


def normalise(messages: Sequence[Message]) -> str:
    """The text of messages without differences of case, white space and Unicode form.

    Punctuation stays: "3 + 4" and "3 - 4" are two problems. The system message goes: it is the same for many.
    """
    text = "\n".join(message.content for message in messages if message.role != "system")
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def drop_duplicates(prompts: Sequence[Prompt], training: Iterable[Prompt | Conversation]) -> tuple[list[Prompt], int]:
    """``prompts`` without those that ``training`` or an earlier prompt also asks, and how many were dropped.

    Of a conversation, everything before an assistant message counts as asked.
    """
    seen = set()
    for record in training:
        if isinstance(record, Prompt):
            seen.add(normalise(record.messages))
            continue
        for index, message in enumerate(record.messages):
            if message.role == "assistant":
                seen.add(normalise(record.messages[:index]))
    kept = []
    for prompt in prompts:
        text = normalise(prompt.messages)
        if text not in seen:
            kept.append(prompt)
            seen.add(text)
    return kept, len(prompts) - len(kept)
