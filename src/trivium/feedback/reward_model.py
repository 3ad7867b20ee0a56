"""A trained reward model at work: scores of responses, on their own scale or on that of the model's statistics."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from trivium.data.ragged import micro_batches
from trivium.data.records import Message
from trivium.errors import UserError
from trivium.feedback.verdict import Verdict
from trivium.files import read_json
from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder
from trivium.model.huggingface import load_model, resolve_directory
from trivium.model.layout import ragged_layout
from trivium.text.chat import response_ids
from trivium.text.tokenizer import Tokenizer

STATISTICS = "reward.json"  # mean and deviation of the scores, beside config.json
Item = tuple[Sequence[Message], str, bool]  # the prompt's messages, the response, whether it ended with a stop token


class RewardModel:
    """Scores responses with a decoder that has scalar heads. Inference only, in float32.

    A score is read at the last real token of prompt and response, found by length; it does not depend on what else is
    scored beside it. Equal items are scored once, so that equal responses have equal scores to the last bit.
    ``mean`` and ``std`` (heads,) are the statistics that ``normalised`` uses: 0 and 1 where the directory has none.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        budget_tokens: int = 16384,
    ) -> None:
        self.decoder, self.tokenizer, self.budget_tokens = (
            decoder.eval().requires_grad_(False),
            tokenizer,
            budget_tokens,
        )
        self.device = decoder.embedding.weight.device
        self.heads = decoder.config.scalar_heads
        self.mean = torch.zeros(self.heads) if mean is None else mean
        self.std = torch.ones(self.heads) if std is None else std

    @classmethod
    def load(
        cls, directory: str | Path, device: str | torch.device = "cpu", budget_tokens: int = 16384
    ) -> "RewardModel":
        """The reward model of a directory or hub name; UserError if it is none, or its statistics do not fit it."""
        place = resolve_directory(directory)
        decoder = load_model(place, device=device)
        heads = decoder.config.scalar_heads
        if not heads:
            raise UserError(
                f"{directory} is a language model without a scalar head and gives no scores; name a stage of kind "
                "reward, or the directory of a sequence classification model"
            )
        known = read_json(place / STATISTICS) or {}
        mean, std = torch.tensor(known.get("mean", [0.0] * heads)), torch.tensor(known.get("std", [1.0] * heads))
        if mean.shape != (heads,) or std.shape != (heads,) or not bool((std > 0).all()):
            raise UserError(f"{place / STATISTICS} needs a mean and a positive std for each of the {heads} heads")
        return cls(decoder, Tokenizer.load(place), mean, std, budget_tokens)

    @property
    def context_length(self) -> int:
        return self.decoder.config.context_length

    def tokens(self, items: Sequence[Item]) -> list[list[int]]:
        """What the model reads of each item."""
        return [response_ids(self.tokenizer, messages, text, finished) for messages, text, finished in items]

    def score(self, items: Sequence[Item]) -> Tensor:
        """Raw scores (N, heads) float32 on the CPU. UserError for an item longer than the model's context."""
        return self._score(self.tokens(items))

    def normalised(self, items: Sequence[Item]) -> Tensor:
        """(N,): the mean over heads of (score - mean) / std."""
        return self._normalise(self.score(items)).mean(1)

    def disagreement(self, items: Sequence[Item]) -> Tensor:
        """(N,): the deviation of the normalised scores over heads (divided by their number); 0 with one head."""
        return self._normalise(self.score(items)).std(1, correction=0)

    def verdicts(self, items: Sequence[Item], normalise: bool = True) -> list[Verdict]:
        """A verdict each. What the model cannot judge, being too long for it or given no finite score, is an
        ``infra_error``: no score at all, and never a zero."""
        read = self.tokens(items)
        fits = [index for index, tokens in enumerate(read) if len(tokens) <= self.context_length]
        scores = self._score([read[index] for index in fits])
        values = (self._normalise(scores) if normalise else scores).mean(1).tolist()
        verdicts = [
            Verdict(
                0.0,
                "infra_error",
                detail=f"prompt and response have {len(tokens)} tokens, the reward model reads {self.context_length}",
            )
            for tokens in read
        ]
        for index, value in zip(fits, values, strict=True):
            finite = math.isfinite(value)
            broken = Verdict(0.0, "infra_error", detail="the reward model's score is not finite")
            verdicts[index] = Verdict(value) if finite else broken
        return verdicts

    def _normalise(self, scores: Tensor) -> Tensor:
        return (scores - self.mean) / self.std

    @torch.no_grad()
    def _score(self, read: Sequence[Sequence[int]]) -> Tensor:
        longest = max(map(len, read), default=0)
        if longest > self.context_length:
            raise UserError(
                f"prompt and response have {longest} tokens, more than the {self.context_length} that the reward model "
                "reads; shorten them, or train one with a longer context"
            )
        distinct = sorted({tuple(tokens) for tokens in read}, key=lambda tokens: (len(tokens), tokens))
        found: dict[tuple[int, ...], Tensor] = {}
        # by length, so that a forward pass holds texts alike; no autocast: a score keeps its digits in any recipe
        with torch.autocast(self.device.type, enabled=False):
            for part in micro_batches([len(tokens) for tokens in distinct], self.budget_tokens):
                chosen = [distinct[index] for index in part]
                found |= zip(chosen, self._forward(chosen), strict=True)
        scores = [found[tuple(tokens)] for tokens in read]
        return torch.stack(scores) if scores else torch.zeros(0, self.heads)

    def _forward(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        lengths = [len(tokens) for tokens in sequences]
        layout = ragged_layout(lengths).to(self.device)
        flat = torch.tensor([token for tokens in sequences for token in tokens], device=self.device)
        last = torch.tensor(lengths, device=self.device).cumsum(0) - 1

        def head(hidden: Tensor, weight: Tensor) -> Tensor:
            return F.linear(hidden[last], weight).float()

        scores: Tensor = self.decoder(flat, layout.positions, GridAttention(layout), head)
        return scores.cpu()
