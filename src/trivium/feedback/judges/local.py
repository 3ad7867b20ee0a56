"""A checkpoint of ours as a judge: exact probabilities of the choices from a forward pass, texts from the engine."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from trivium import files
from trivium.data.ragged import batch_groups, micro_batches
from trivium.data.records import Message
from trivium.feedback.judges.base import OnReply, Question, Reply, known_name
from trivium.generation.engine import Engine
from trivium.generation.sampling import SamplingSettings
from trivium.generation.scheduler import Request
from trivium.model.attention import GridAttention
from trivium.model.decoder import Decoder
from trivium.model.head import token_log_probs
from trivium.model.huggingface import load_language_model, resolve_directory
from trivium.text.chat import prompt_ids, render, response_ids
from trivium.text.tokenizer import Tokenizer

BATCH_TOKENS = 16384  # tokens of one forward pass
BATCH_TEXTS = 64  # texts written at a time


class LocalBackend:
    """Answers with ``decoder``, in float32 and without autocast, so that a verdict is the same in any recipe.

    The probability of a choice is that of all its tokens after the question, relative to the other choices; where one
    choice begins another ("1" and "10"), the shorter one includes the end of the turn. A question that is longer than
    the model's context is missing.
    """

    def __init__(
        self, decoder: Decoder, tokenizer: Tokenizer, name: str, identity: str, device: torch.device | str = "cpu"
    ) -> None:
        self.decoder, self.tokenizer = decoder.to(device), tokenizer
        self.name, self.identity = name, identity
        self.device = torch.device(device)
        self.context = decoder.config.context_length
        self._engine = Engine(decoder, slots=BATCH_TEXTS, decode=tokenizer.decode)
        self._read: dict[Question, list[int]] = {}  # the tokens of questions that were cut into batches
        self._tokens: dict[tuple[str, ...], list[list[int]]] = {}

    @classmethod
    def load(cls, source: str | Path, name: str, device: torch.device | str = "cpu") -> "LocalBackend":
        """The model of a directory or hub name. UserError if it cannot be read, or writes no text."""
        directory = resolve_directory(source)
        decoder, tokenizer = load_language_model(directory, device), Tokenizer.load(directory)
        return cls(decoder, tokenizer, known_name(name), weights_identity(directory, tokenizer), device)

    def batches(self, questions: Sequence[Question]) -> list[list[int]]:
        """The questions of each forward pass: verdicts by length, then texts by their settings. A run that was killed
        finds whole batches done and cuts the rest as before."""
        self._read.clear()
        return self._cut(questions)

    def _cut(self, questions: Sequence[Question]) -> list[list[int]]:
        read = [self._ids(question) for question in questions]
        verdicts = sorted((i for i, q in enumerate(questions) if q.choices), key=lambda i: (len(read[i]), i))
        sizes = [len(read[i]) + sum(map(len, self.choice_tokens(questions[i].choices))) for i in verdicts]
        found = [[verdicts[k] for k in part] for part in micro_batches(sizes, BATCH_TOKENS)]
        texts: dict[tuple[float, int], list[int]] = {}
        for index, question in enumerate(questions):
            if not question.choices:
                texts.setdefault((question.temperature, question.max_new_tokens), []).append(index)
        for group in texts.values():
            found += [group[start : start + BATCH_TEXTS] for start in range(0, len(group), BATCH_TEXTS)]
        return found

    def ask(self, questions: Sequence[Question], on_reply: OnReply) -> None:
        for batch in self._cut(questions):
            fits = []
            for index in batch:
                question = questions[index]
                needed = len(self._ids(question)) + self._room(question)
                if needed > self.context:
                    words = f"the question has {needed} tokens with its answer, the model's context {self.context}"
                    on_reply(index, Reply(missing=words))
                else:
                    fits.append(index)
            if fits:
                work = self._choose if questions[fits[0]].choices else self._write
                for index, reply in zip(fits, work([questions[index] for index in fits]), strict=True):
                    on_reply(index, reply)
        for question in questions:
            self._read.pop(question, None)

    def close(self) -> None:
        """The memory of keys and values is given back; the weights are the caller's."""
        self._read.clear()
        self._engine.cache = self._engine.graphs = None

    def choice_tokens(self, choices: tuple[str, ...]) -> list[list[int]]:
        """The tokens of each choice as they follow a question, with the end of the turn where one begins another."""
        if choices not in self._tokens:
            said = [self._said(choice) for choice in choices]
            whole = []
            for tokens in said:
                begins = any(len(other) > len(tokens) and other[: len(tokens)] == tokens for other in said)
                whole.append([*tokens, self._stop] if begins else tokens)
            self._tokens[choices] = whole
        return self._tokens[choices]

    @property
    def _stop(self) -> int:
        return response_ids(self.tokenizer, [Message("user", "a")], "b", finished=True)[-1]

    def _said(self, choice: str) -> list[int]:
        """The tokens of ``choice`` in an answer: those of the chat template, where it writes answers as they are.

        Some tokenizers join an answer with what the template puts before it, so a text encoded apart may differ.
        """
        question = [Message("user", "a")]
        asked = prompt_ids(self.tokenizer, question)
        whole = render(self.tokenizer, [*question, Message("assistant", choice)])
        if whole[: len(asked)] == asked:
            tail = whole[len(asked) :]
            end = next((k for k, token in enumerate(tail) if token in self.tokenizer.stop_token_ids), len(tail))
            if end and self.tokenizer.decode(tail[:end]).strip() == choice:
                return tail[:end]
        return self.tokenizer.encode(choice)

    def _ids(self, question: Question) -> list[int]:
        if question not in self._read:
            self._read[question] = prompt_ids(self.tokenizer, question.messages)
        return self._read[question]

    def _room(self, question: Question) -> int:
        """Tokens that must fit behind the question: the last token of a choice is predicted, not read."""
        return max(map(len, self.choice_tokens(question.choices))) - 1 if question.choices else 1

    @torch.inference_mode()
    def _choose(self, questions: Sequence[Question]) -> list[Reply]:
        groups = [(self._ids(question), self.choice_tokens(question.choices)) for question in questions]
        batch = batch_groups(groups).to(self.device)
        training = self.decoder.training
        self.decoder.eval()

        def head(hidden: Tensor, weight: Tensor) -> Tensor:
            return token_log_probs(hidden[batch.sources], weight, batch.targets)[0]

        try:
            with torch.autocast(self.device.type, enabled=False):
                found = self.decoder(batch.tokens, batch.layout.positions, GridAttention(batch.layout), head)
        finally:
            self.decoder.train(training)
        choices = [len(responses) for _, responses in groups]
        sums = torch.zeros(sum(choices), dtype=torch.float64, device=self.device)
        sums.index_add_(0, batch.sequences, found.double())
        replies = []
        for (prompt, responses), scores in zip(groups, sums.cpu().split(choices), strict=True):
            probabilities = scores.softmax(0)
            if bool(torch.isfinite(probabilities).all()):
                reply = Reply(tuple(probabilities.tolist()), "", "", len(prompt), sum(map(len, responses)))
            else:
                reply = Reply(missing="the model's probabilities are not finite", prompt_tokens=len(prompt))
            replies.append(reply)
        return replies

    def _write(self, questions: Sequence[Question]) -> list[Reply]:
        stops = tuple(self.tokenizer.stop_token_ids)
        first = questions[0]
        settings = SamplingSettings(first.temperature, 0, 1.0, first.max_new_tokens, stops)
        requests = [Request(tuple(self._ids(question)), _stream(question)) for question in questions]
        replies = []
        for request, (completion,) in zip(requests, self._engine.generate(requests, settings), strict=True):
            tokens = completion.tokens[:-1] if completion.tokens[-1] in stops else completion.tokens
            text = self.tokenizer.decode(tokens).strip()
            missing = "" if text else "the model wrote nothing"
            cut = completion.finish_reason == "length"
            replies.append(Reply((), text, missing, len(request.prompt), len(completion.tokens), cut))
        return replies


def weights_identity(directory: Path, tokenizer: Tokenizer) -> str:
    """A hash of everything in a model directory that an answer depends on."""
    parts = [files.sha256(path) for path in sorted(directory.glob("*.safetensors"))]
    parts += [files.sha256(directory / "config.json"), tokenizer.fingerprint]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _stream(question: Question) -> str:
    """What the draws of a text depend on: the question and its stream, never who else is in the batch."""
    content = "\x1f".join(f"{message.role}\x1e{message.content}" for message in question.messages)
    content_hash = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"judge/{question.stream}/{content_hash}"
