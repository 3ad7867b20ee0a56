import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.config import RecipeConfig, SourceConfig
from trivium.data.corpus import TokenCorpus, build_corpora
from trivium.data.packing import Pieces, make_batches, validation_sequences
from trivium.data.records import Document
from trivium.errors import UserError
from trivium.text.tokenizer import Tokenizer

RECIPE = RecipeConfig(name="test", stages={})
LETTERS = "abcdefghij "


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_character([LETTERS])


def corpus_of(lengths: list[int], start_id: int = 1) -> TokenCorpus:
    """Documents of these many tokens, all tokens distinct from 2 on."""
    offsets = np.cumsum([0, *lengths])
    return TokenCorpus(np.arange(2, 2 + offsets[-1], dtype=np.uint16), offsets, start_id, int(offsets[-1]), "test")


def batches(packing, corpora, weights=None, **settings):
    settings = {"seed": 0, "name": "pretrain", "batch_tokens": 32, "context_length": 8, **settings}
    return make_batches(packing, corpora, weights or [1.0] * len(corpora), **settings)


def test_build_writes_documents_with_separators(tokenizer, tmp_path) -> None:
    texts = ["abc", "", "a b"]
    corpus = TokenCorpus.build(tmp_path / "c", map(Document, texts), tokenizer, "f")
    end = tokenizer.document_separator_id
    assert corpus.tokens.tolist() == [*tokenizer.encode("abc"), end, *tokenizer.encode("a b"), end]
    assert corpus.offsets.tolist() == [0, 4, 8] and corpus.document_count == 2
    assert corpus.byte_count == 6 and corpus.tokens.dtype == np.uint16


def test_build_is_done_once_and_again_when_inputs_change(tokenizer, tmp_path) -> None:
    def build(mark: str, text: str, **settings):
        return TokenCorpus.build(tmp_path / "c", iter([Document(text)]), tokenizer, mark, **settings)

    build("one", "abc")
    assert len(build("one", "never read")) == 4
    assert len(build("two", "ab")) == 3
    assert len(build("two", "ab", limit_tokens=2)) == 2
    (tmp_path / "c" / "tokens.bin").write_bytes(b"\0")  # a torn file is not trusted
    assert len(build("two", "abcde", limit_tokens=2)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_failed_build_leaves_the_old_one(tokenizer, tmp_path, monkeypatch) -> None:
    TokenCorpus.build(tmp_path / "c", [Document("abc")], tokenizer, "one")

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        TokenCorpus.build(tmp_path / "c", [Document("b")], tokenizer, "two")
    assert len(TokenCorpus.build(tmp_path / "c", [], tokenizer, "one")) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 9])
def test_limit_cuts_the_last_document(tokenizer, tmp_path, limit: int) -> None:
    def endless():
        while True:
            yield Document("abc")

    corpus = TokenCorpus.build(tmp_path / "c", endless(), tokenizer, "f", limit_tokens=limit)
    assert len(corpus) == limit
    assert corpus.byte_count == sum(1 for token in corpus.tokens if token != tokenizer.document_separator_id)


def test_corpus_without_text_is_refused(tokenizer, tmp_path) -> None:
    with pytest.raises(UserError, match="no text in them"):
        TokenCorpus.build(tmp_path / "c", [Document("")], tokenizer, "f")


def test_sources_share_the_limit_by_weight(tokenizer, tmp_path) -> None:
    configs = []
    for name, weight in (("a", 3.0), ("b", 1.0)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": "abc " * 50}) + "\n")
        configs.append(SourceConfig(source=str(tmp_path / f"{name}.jsonl"), weight=weight))
    corpora = build_corpora(configs, RECIPE, tokenizer, tmp_path / "corpus", limit_tokens=40)
    assert [len(corpus) for corpus in corpora] == [30, 10]
    stamp = (tmp_path / "corpus" / "0" / "tokens.bin").stat().st_mtime_ns
    build_corpora(configs, RECIPE, tokenizer, tmp_path / "corpus", limit_tokens=40)
    assert (tmp_path / "corpus" / "0" / "tokens.bin").stat().st_mtime_ns == stamp


def test_pieces_docstring_example() -> None:
    pieces = Pieces(corpus_of([6, 2]), context_length=4)
    sequences = pieces.sequences(np.arange(pieces.count))
    assert [sequence.tokens for sequence in sequences] == [(1, 2, 3, 4), (4, 5, 6, 7), (1, 8, 9)]
    assert sequences[0].loss_mask == (False, True, True, True)
    assert pieces.total == 4 + 4 + 3 and pieces.longest == 4


DOCUMENTS = st.lists(st.integers(1, 30), min_size=1, max_size=20)


@given(lengths=DOCUMENTS, context=st.integers(2, 12))
def test_pieces_predict_every_token_once(lengths: list[int], context: int) -> None:
    corpus = corpus_of(lengths)
    sequences, byte_count = validation_sequences("documents", [corpus], context)
    predicted = [t for s in sequences for t, loss in zip(s.tokens, s.loss_mask, strict=True) if loss]
    assert predicted == corpus.tokens.tolist() and byte_count == len(corpus)
    assert max(len(s.tokens) for s in sequences) <= context


@given(lengths=DOCUMENTS, context=st.integers(2, 12), batch_tokens=st.integers(12, 40), seed=st.integers(0, 3))
def test_documents_come_once_an_epoch_in_any_order_of_calls(lengths, context, batch_tokens, seed) -> None:
    corpus = corpus_of(lengths)
    settings = {"batch_tokens": batch_tokens, "context_length": context, "seed": seed}
    order = batches("documents", [corpus], **settings)
    pieces = Pieces(corpus, context)
    steps = [order.batch(step) for step in range(3 * pieces.total // batch_tokens + 2)]
    assert all(steps)
    drawn = [sequence.tokens for step in steps for sequence in step]
    every = sorted(sequence.tokens for sequence in pieces.sequences(np.arange(pieces.count)))
    for epoch in range(3):
        assert sorted(drawn[epoch * pieces.count : (epoch + 1) * pieces.count]) == every
    fresh = batches("documents", [corpus], **settings)
    for step in reversed(range(len(steps))):
        assert fresh.batch(step) == steps[step]


def test_batches_have_their_tokens_and_weights_their_shares() -> None:
    corpora = [corpus_of([5] * 40), corpus_of([7] * 30, start_id=60000)]
    order = batches("documents", corpora, [3.0, 1.0], batch_tokens=100, context_length=8)
    counts = [0, 0]
    for step in range(200):
        sequences = order.batch(step)
        assert abs(sum(len(s.tokens) for s in sequences) - 100) <= 16
        for sequence in sequences:
            counts[sequence.tokens[0] == 60000] += len(sequence.tokens)
    assert abs(counts[0] - 15000) <= 8 and abs(counts[1] - 5000) <= 8


def test_batch_too_small_for_a_sequence_is_refused() -> None:
    with pytest.raises(UserError, match="batch_tokens is 7, but one sequence has up to 8"):
        batches("documents", [corpus_of([30])], batch_tokens=7)
    with pytest.raises(UserError, match="less than a block"):
        batches("blocks", [corpus_of([30])], batch_tokens=7)
    with pytest.raises(UserError, match="fewer than one block of 9"):
        batches("blocks", [corpus_of([8])])


def test_blocks_are_windows_of_the_joined_text() -> None:
    corpora = [corpus_of([9, 20]), corpus_of([30])]
    order = batches("blocks", corpora, [1.0, 1.0])
    seen = set()
    for step in range(100):
        sequences = order.batch(step)
        assert len(sequences) == 4 and sequences == batches("blocks", corpora, [1.0, 1.0]).batch(step)
        for sequence in sequences:
            first = sequence.tokens[0]
            assert sequence.tokens == tuple(range(first, first + 9)) and sequence.loss_tokens == 8
            seen.add(first)
    assert seen == set(range(2, 2 + 22))  # every place, the last one included


def test_block_validation_covers_the_text_once() -> None:
    corpus = corpus_of([9, 20])
    sequences, byte_count = validation_sequences("blocks", [corpus], 8)
    predicted = [token for sequence in sequences for token in sequence.tokens[1:]]
    assert predicted == corpus.tokens.tolist()[1:] and byte_count == 29


def test_nothing_of_the_corpus_is_held_in_memory(tokenizer, tmp_path: Path) -> None:
    corpus = TokenCorpus.build(tmp_path / "c", [Document("abc")], tokenizer, "f")
    assert isinstance(corpus.tokens, np.memmap) and isinstance(corpus.offsets, np.memmap)
