"""A judge's backend without a model, for tests: deterministic, and as good or bad as it is told to be."""

import math
import time
from collections.abc import Callable, Sequence

from trivium.feedback.judges import prompts
from trivium.feedback.judges.base import OnReply, Question, Reply


class FakeBackend:
    """Answers by the function ``answer``, ``seconds`` after it is asked; ``asked`` holds the questions it was asked.

    Without a function (``backend: fake`` in a recipe) it prefers the longer text between the marks: of two, the first
    with probability 1 / (1 + exp(-d / 20)) where it is d characters longer; scores rise with the length, and a text it
    writes is "More:" and the last text between the marks. A token is four characters.
    """

    def __init__(
        self,
        answer: Callable[[Question], Reply] | None = None,
        *,
        name: str = "fake",
        identity: str = "fake",
        delimiters: prompts.Delimiters = prompts.DELIMITERS,
        seconds: float = 0.0,
    ) -> None:
        self.name, self.identity, self.delimiters, self.seconds = name, identity, delimiters, seconds
        self.answer = answer or self._longer
        self.asked: list[Question] = []

    def ask(self, questions: Sequence[Question], on_reply: OnReply) -> None:
        for index, question in enumerate(questions):
            if self.seconds:
                time.sleep(self.seconds)
            self.asked.append(question)
            on_reply(index, self.answer(question))

    def close(self) -> None:
        pass

    def _longer(self, question: Question) -> Reply:
        texts = prompts.materials(question.messages[-1].content, self.delimiters)
        read = sum(len(message.content) for message in question.messages) // 4 + 1
        if not question.choices:
            return Reply(text=f"More: {texts[-1]}", prompt_tokens=read, completion_tokens=len(texts[-1]) // 4 + 2)
        if len(question.choices) == 2 and len(texts) >= 2:
            first = 1 / (1 + math.exp(-max(-700, min(700, (len(texts[-2]) - len(texts[-1])) / 20))))
            probabilities = [first, 1 - first]
        else:
            aim = min(1.0, len(texts[-1]) / 200) * (len(question.choices) - 1)
            weights = [math.exp(-abs(place - aim)) for place in range(len(question.choices))]
            probabilities = [weight / sum(weights) for weight in weights]
        return Reply(probabilities=tuple(probabilities), prompt_tokens=read, completion_tokens=1)
