"""Batches of token sequences out of corpora: ``batch(step)`` depends on the seed, the name and the step alone."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from trivium.data.corpus import TokenCorpus
from trivium.data.mixture import permutation
from trivium.data.records import TokenSequence
from trivium.errors import UserError
from trivium.streams import generator


class DocumentBatches:
    """Whole documents, each a sequence of its own; those longer than the context are cut into pieces.

    The pieces of a source are laid end to end in the order of a permutation, epoch after epoch. With weight w, step t
    takes the pieces that *begin* in tokens [t·w·B, (t+1)·w·B) of that line, where B is ``batch_tokens``. So a step has
    B tokens on average and never more than a piece a source away from it; the shares of the sources are their weights;
    every piece comes once an epoch; and any step is found by bisection, whatever came before.
    """

    def __init__(
        self,
        corpora: Sequence[TokenCorpus],
        weights: Sequence[float],
        *,
        seed: int,
        name: str,
        batch_tokens: int,
        context_length: int,
    ) -> None:
        """Raises UserError if ``batch_tokens`` cannot hold one piece of some source, so that steps would be empty."""
        self._corpora = corpora
        self._budgets = [batch_tokens * weight / sum(weights) for weight in weights]
        self._seed = seed
        self._name = name
        self._pieces = [Pieces(corpus, context_length) for corpus in corpora]
        # A window of real-valued ends holds a whole number of tokens that may be one less than its width.
        slack = 0 if len(corpora) == 1 else 1
        longest = max(pieces.longest for pieces in self._pieces)
        if not any(b >= p.longest + slack for b, p in zip(self._budgets, self._pieces, strict=True)):
            raise UserError(
                f"batch_tokens is {batch_tokens}, but one sequence has up to {longest} tokens and the sources share a "
                "batch: raise batch_tokens, or lower model.context_length"
            )
        self._plan = lru_cache(maxsize=2 * len(corpora))(self._make_plan)

    def batch(self, step: int) -> list[TokenSequence]:
        """The sequences of ``step`` (from 0); every token but the first of a sequence carries loss."""
        sequences = []
        for source, (budget, pieces) in enumerate(zip(self._budgets, self._pieces, strict=True)):
            begin, end = int(step * budget), int((step + 1) * budget)
            for epoch in range(begin // pieces.total, (end - 1) // pieces.total + 1):
                order, starts = self._plan(source, epoch)
                low, high = np.searchsorted(starts, [begin - epoch * pieces.total, end - epoch * pieces.total])
                sequences += pieces.sequences(order[low:high])
        return sequences

    def _make_plan(self, source: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the pieces in an epoch, and at which of its tokens each begins."""
        pieces = self._pieces[source]
        order = permutation(self._seed, f"{self._name}/pieces", source, epoch, pieces.count)
        lengths = pieces.lengths(order)
        return order, np.cumsum(lengths) - lengths


class BlockBatches:
    """Random windows of the joined text, as in character-level benchmarks: batch_tokens // context_length a step."""

    def __init__(
        self,
        corpora: Sequence[TokenCorpus],
        weights: Sequence[float],
        *,
        seed: int,
        name: str,
        batch_tokens: int,
        context_length: int,
    ) -> None:
        """Raises UserError if a corpus is shorter than a window, or a batch than a context."""
        for corpus in corpora:
            if len(corpus) < context_length + 1:
                raise UserError(
                    f"a corpus has {len(corpus)} tokens, fewer than one block of {context_length + 1}: give more text "
                    "or lower model.context_length"
                )
        self._windows = batch_tokens // context_length
        if not self._windows:
            raise UserError(
                f"batch_tokens is {batch_tokens}, less than a block of model.context_length {context_length}: raise it"
            )
        self._corpora = corpora
        self._shares = np.array(weights, dtype=float) / sum(weights)
        self._seed = seed
        self._name = name
        self._context_length = context_length

    def batch(self, step: int) -> list[TokenSequence]:
        """Windows of context_length + 1 tokens, thus context_length predictions each."""
        random = generator(self._seed, f"{self._name}/blocks", step)
        chosen = random.choice(len(self._corpora), size=self._windows, p=self._shares)
        sequences = []
        for source in chosen:
            tokens = self._corpora[source].tokens
            begin = int(random.integers(len(tokens) - self._context_length))
            sequences.append(whole(tokens[begin : begin + self._context_length + 1].tolist()))
        return sequences


class Pieces:
    """The sequences that cover each document of a corpus once.

    A document is read with the start token before it. Where it is longer than the context, the next piece begins with
    the last token of the one before, so that every token of the document is predicted exactly once. With start S,
    separator E and a context of 4::

        document a b c d e E   ->   S a b c | c d e E     (predicted: a b c | d e E)
    """

    def __init__(self, corpus: TokenCorpus, context_length: int) -> None:
        self._corpus = corpus
        self._predictions = context_length - 1
        lengths = np.diff(corpus.offsets)  # [documents] tokens, each to be predicted
        counts = -(-lengths // self._predictions)
        self._first = np.concatenate([[0], np.cumsum(counts)])  # [documents + 1] first piece of each document
        self.count = int(self._first[-1])
        self.total = int(lengths.sum()) + self.count
        self.longest = int(min(lengths.max(), self._predictions)) + 1

    def lengths(self, pieces: np.ndarray) -> np.ndarray:
        """Tokens of each of ``pieces`` ([n] int64), the first one included."""
        _, begin, end = self._bounds(pieces)
        return end - begin + 1

    def sequences(self, pieces: np.ndarray) -> list[TokenSequence]:
        """The sequences of ``pieces`` ([n] int64)."""
        documents, begins, ends = self._bounds(pieces)
        opens = pieces == self._first[documents]
        # A piece that opens the corpus has no token before it: index -1 is then read and not used.
        before = np.where(opens, self._corpus.start_id, self._corpus.tokens[begins - 1].astype(np.int64))
        tokens = self._corpus.tokens
        return [
            whole([first, *tokens[begin:end].tolist()])
            for first, begin, end in zip(before.tolist(), begins.tolist(), ends.tolist(), strict=True)
        ]

    def _bounds(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The document of each piece, and the tokens it predicts: [begin, end) in the corpus."""
        documents = np.searchsorted(self._first, pieces, side="right") - 1
        offsets = self._corpus.offsets
        begin = offsets[documents] + (pieces - self._first[documents]) * self._predictions
        return documents, begin, np.minimum(begin + self._predictions, offsets[documents + 1])


def whole(tokens: list[int]) -> TokenSequence:
    """A sequence with loss on every token but the first."""
    return TokenSequence(tuple(tokens), (False, *(True,) * (len(tokens) - 1)))


def make_batches(
    packing: str,
    corpora: Sequence[TokenCorpus],
    weights: Sequence[float],
    *,
    seed: int,
    name: str,
    batch_tokens: int,
    context_length: int,
) -> DocumentBatches | BlockBatches:
    """The packing that a recipe names."""
    kinds: dict[str, type[DocumentBatches] | type[BlockBatches]] = {
        "documents": DocumentBatches,
        "blocks": BlockBatches,
    }
    kind = kinds[packing]
    return kind(corpora, weights, seed=seed, name=name, batch_tokens=batch_tokens, context_length=context_length)


def validation_sequences(
    packing: str, corpora: Sequence[TokenCorpus], context_length: int
) -> tuple[list[TokenSequence], int]:
    """Sequences that cover held-out corpora once, in order, and how many UTF-8 bytes they stand for.

    documents: the pieces of every document; each of its tokens is predicted once. blocks: windows of context_length + 1
    tokens of the joined text, a window beginning with the last token of the one before; only the very first token of a
    corpus is not predicted. bits per byte = summed loss in nats / (bytes · ln 2).
    """
    sequences = []
    for corpus in corpora:
        if packing == "documents":
            pieces = Pieces(corpus, context_length)
            sequences += pieces.sequences(np.arange(pieces.count))
        else:
            starts = range(0, len(corpus) - 1, context_length)
            sequences += [whole(corpus.tokens[begin : begin + context_length + 1].tolist()) for begin in starts]
    return sequences, sum(corpus.byte_count for corpus in corpora)
