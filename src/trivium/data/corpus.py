"""A corpus as token ids on disk: written once, document by document, then mapped into memory.

A folder holds tokens.bin (uint16, or uint32 for more than 65,536 tokens), offsets.npy (where each document begins, and
the end of the last) and corpus.json. A document is its tokens and the document separator.
"""

import json
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from trivium.config import RecipeConfig, SourceConfig
from trivium.data import sources
from trivium.data.records import Document
from trivium.errors import UserError
from trivium.text.tokenizer import Tokenizer

# Documents are encoded together up to this many, or this many characters: memory is bounded by a batch.
_BATCH_DOCUMENTS = 512
_BATCH_CHARACTERS = 4 * 2**20


@dataclass(frozen=True)
class TokenCorpus:
    """Token ids of one source.

    tokens: [n_tokens] ids of all documents, each ended by the separator; offsets: [n_documents + 1] int64;
    start_id: what stands before a document when it is read alone; byte_count: UTF-8 bytes of all documents, for bits
    per byte.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    start_id: int
    byte_count: int
    fingerprint: str

    @classmethod
    def build(
        cls,
        folder: Path,
        documents: Iterable[Document],
        tokenizer: Tokenizer,
        fingerprint: str,
        limit_tokens: int | None = None,
    ) -> "TokenCorpus":
        """The corpus in ``folder``; made from ``documents`` if there is none with this ``fingerprint``.

        ``documents`` is not touched when the folder is used as it is. At most ``limit_tokens`` are kept: the document
        that crosses the limit is cut there. The folder appears whole or not at all. Raises UserError for a full disk
        and for documents without any text.
        """
        mark = f"{fingerprint} {tokenizer.fingerprint} {limit_tokens}"
        found = cls._open(folder, mark)
        if found is not None:
            return found
        beside = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir(parents=True)
            _write(beside, documents, tokenizer, mark, limit_tokens)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        except OSError as error:
            raise UserError(f"the corpus cannot be written to {folder} ({error.strerror}): make room for it") from None
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        made = cls._open(folder, mark)
        if made is None:
            raise UserError(f"{folder} changed while it was written: let one run at a time use it")
        return made

    @classmethod
    def _open(cls, folder: Path, mark: str) -> "TokenCorpus | None":
        """The corpus in ``folder`` if it is whole and has this mark."""
        try:
            about = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
            if about["fingerprint"] != mark:
                return None
            tokens = np.memmap(folder / "tokens.bin", dtype=about["dtype"], mode="r")
            offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError):
            return None
        if len(tokens) != about["tokens"] or len(offsets) != about["documents"] + 1:
            return None
        return cls(tokens, offsets, about["start_id"], about["bytes"], mark)

    @property
    def document_count(self) -> int:
        return len(self.offsets) - 1

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


def build_corpora(
    configs: Sequence[SourceConfig],
    recipe: RecipeConfig,
    tokenizer: Tokenizer,
    folder: Path,
    limit_tokens: int | None = None,
    base: Path | None = None,
) -> list[TokenCorpus]:
    """One corpus a source, in ``folder``/0, /1, …; ``limit_tokens`` is for all, divided by the sources' weights."""
    total = sum(config.weight for config in configs)
    corpora = []
    for number, config in enumerate(configs):
        limit = None if limit_tokens is None else max(1, int(limit_tokens * config.weight / total))
        documents = sources.documents([config], recipe, base)
        mark = sources.fingerprint([config.model_copy(update={"weight": 1.0})], recipe, base)
        corpora.append(TokenCorpus.build(folder / str(number), documents, tokenizer, mark, limit))
    return corpora


def _write(
    folder: Path, documents: Iterable[Document], tokenizer: Tokenizer, mark: str, limit_tokens: int | None
) -> None:
    dtype = np.dtype(np.uint16 if tokenizer.vocabulary_size <= 2**16 else np.uint32)
    separator = tokenizer.document_separator_id
    offsets = array("q", [0])
    byte_count = 0
    with open(folder / "tokens.bin", "wb") as file:
        for text, ids in _encoded(documents, tokenizer):
            room = None if limit_tokens is None else limit_tokens - offsets[-1]
            kept = [*ids, separator][:room]
            # A cut document is worth the bytes of what is left of it.
            byte_count += len((text if len(kept) > len(ids) else tokenizer.decode(kept)).encode())
            file.write(np.asarray(kept, dtype=dtype).tobytes())
            offsets.append(offsets[-1] + len(kept))
            if offsets[-1] == limit_tokens:
                break
        file.flush()
        os.fsync(file.fileno())
    if len(offsets) == 1:
        raise UserError("the corpus has documents but no text in them: check the data or its field map")
    np.save(folder / "offsets.npy", np.asarray(offsets, dtype=np.int64))
    about: dict[str, Any] = {
        "fingerprint": mark,
        "dtype": dtype.name,
        "tokens": offsets[-1],
        "documents": len(offsets) - 1,
        "bytes": byte_count,
        "start_id": tokenizer.document_start_id,
    }
    (folder / "corpus.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _encoded(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[tuple[str, list[int]]]:
    """Text and ids of every document that has text, encoded a batch at a time."""
    remaining = iter(documents)
    while batch := list(_up_to(remaining)):
        texts = [document.text for document in batch if document.text]
        yield from zip(texts, tokenizer.encode_batch(texts), strict=True)


def _up_to(documents: Iterator[Document]) -> Iterator[Document]:
    characters = 0
    for document in islice(documents, _BATCH_DOCUMENTS):
        yield document
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            return
