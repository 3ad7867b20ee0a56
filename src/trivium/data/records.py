"""The records that travel from data to model: documents, conversations, prompts and token sequences."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Document:
    """A text of a corpus."""

    text: str


@dataclass(frozen=True)
class Message:
    """``given``: stretches (from, to) of the content, in characters, that the assistant did not write but was given,
    such as the result of a tool; they carry no loss."""

    role: str  # system, user, assistant or tool
    content: str
    given: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Conversation:
    """Messages in order; the assistant's are what fine-tuning imitates."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Prompt:
    """Messages up to the point where the policy answers, and what a verifier needs to judge the answer.

    ``id`` is stable across runs (a hash of the messages); ``answer`` is whatever the verifier of the task expects;
    ``task`` groups prompts in the evaluation.
    """

    id: str
    messages: tuple[Message, ...]
    answer: Any = None
    task: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenSequence:
    """Token ids and, for each, whether predicting it carries loss (the first never does: nothing precedes it).

    >>> TokenSequence((5, 6, 7, 2), (False, False, True, True)).loss_tokens
    2
    """

    tokens: tuple[int, ...]
    loss_mask: tuple[bool, ...]

    @property
    def loss_tokens(self) -> int:
        return sum(self.loss_mask[1:])


@dataclass(frozen=True)
class LabelledAnswer:
    """An answer of which is known whether it is good, without another to compare it with."""

    prompt: Prompt
    text: str
    good: bool
