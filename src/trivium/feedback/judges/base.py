"""What a judge is asked and what it answers, whoever stands behind it.

Two layers. A *backend* answers ``Question``s: it chooses among given verdicts, with probabilities, or writes a text. A
``Judge`` (judge.py) makes questions of answers and principles, and verdicts of replies; it knows no backend.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trivium.data.records import Message, Prompt


@dataclass(frozen=True)
class Question:
    """One call: ``messages`` to a model. With ``choices`` it is to begin its answer with one of them, and the reply
    holds their probabilities; without, it writes a text of at most ``max_new_tokens``.

    ``stream`` names the random draws of a written or sampled answer: equal questions of other streams are other calls.
    """

    messages: tuple[Message, ...]
    choices: tuple[str, ...] = ()
    max_new_tokens: int = 256
    temperature: float = 1.0
    stream: str = ""


@dataclass(frozen=True)
class Reply:
    """``probabilities`` of the choices, adding up to 1, or the ``text``; ``missing``: why there is neither (a refusal,
    nonsense, a text that is too long), and then the call is no vote. ``cut``: the text ends at ``max_new_tokens``, not
    where its writer would have ended it. Tokens are what the call cost."""

    probabilities: tuple[float, ...] = ()
    text: str = ""
    missing: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut: bool = False


OnReply = Callable[[int, Reply], None]


class Backend(Protocol):
    """Whoever answers. ``name``: how annotators are called in a store; ``identity``: what a cached answer is known by,
    such as a hash of the weights, or the server's address and model."""

    name: str
    identity: str

    def ask(self, questions: Sequence[Question], on_reply: OnReply) -> None:
        """Answer every question, calling ``on_reply(index, reply)`` as soon as its reply is there, in any order and
        from one thread. UserError where nothing can be answered any more; replies that came before it are kept."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt, to be compared."""

    prompt: Prompt
    first: str
    second: str


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt, to be scored, criticised or revised."""

    prompt: Prompt
    text: str


@dataclass(frozen=True)
class Comparison:
    """``probability`` that the first answer is better: the mean over both orders and, by weight, over principles.

    ``forward`` and ``backward`` are the same with the answers shown in the given and in the other order, both as the
    probability of the *first answer*; None where that order was not asked or gave no verdict. A comparison with a call
    that gave none is ``missing`` (the reason) and has no probability: it is no vote.
    """

    probability: float | None
    forward: float | None = None
    backward: float | None = None
    principles: Mapping[str, float] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True)
class Score:
    """``value``: the expected score, the sum of s times P(s) over the constitution's scale, averaged over principles by
    weight; ``rescaled`` to [-1, 1]. None where a call gave no verdict (``missing``)."""

    value: float | None
    rescaled: float | None = None
    principles: Mapping[str, float] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True)
class Written:
    """A critique or a revision, and the ``principle`` it goes by; ``missing``: why there is none."""

    text: str
    principle: str = ""
    missing: str = ""


def known_name(model: str) -> str:
    """What a local judge is known as.

    >>> known_name("runs/first/sft/model"), known_name("owner/name"), known_name("sft")
    ('sft', 'name', 'sft')
    """
    parts = [part for part in Path(model).parts if part not in ("model", "/")]
    return parts[-1] if parts else model
