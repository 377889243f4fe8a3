"""Writing token ids of a corpus into one flat file: whole or not at all, and never all in memory.

Beside the ids, ``stem.bin``, stands where each document begins in them, ``stem.idx``: little-endian uint64,
the first 0, and one more at the end. ``stem.json`` says what is in the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from llm import files
from llm.tokenizers.base import encode_batch, pieces
from llm.types import Tokenizer

Ids = NDArray[np.uint16] | NDArray[np.uint32]

GROUP_CHARACTERS = 1 << 21
DOCUMENT_BREAK = "\n\n"
"""What stands between documents when the vocabulary has no end-of-text id."""


@dataclass(frozen=True)
class PackedInfo:
    """The sidecar of a packed file. `n_bytes` counts the UTF-8 bytes of the texts, without separators."""

    dtype: str
    n_tokens: int
    n_bytes: int
    n_documents: int
    vocab_size: int
    sha256: str


COUNTS = ("n_tokens", "n_bytes", "n_documents")
"""What is counted of a packed file; the whole of several has the sums."""


def digest_of_shards(digests: Sequence[str]) -> str:
    """One digest of shards in order."""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def id_dtype(vocab_size: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """The smallest of the two types that holds every id."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


IDX_DTYPE = np.dtype("<u8")


class PackedWriter:
    """Writes one split, piece by piece; the files get their names only when the block ends well.

    Example::

        with PackedWriter(directory / "train", vocab_size) as writer:
            writer.write(ids, n_bytes=12, n_documents=1)
        writer.info.n_tokens
    """

    info: PackedInfo

    def __init__(self, stem: Path, vocab_size: int) -> None:
        self._stem, self._vocab_size, self._dtype = stem, vocab_size, id_dtype(vocab_size)
        self._open = ExitStack()
        self._digest = hashlib.sha256()
        self._n_tokens = self._n_bytes = self._n_documents = 0

    def __enter__(self) -> PackedWriter:
        temporary = self._open.enter_context(files.replacing(with_ending(self._stem, ".bin")))
        self._file = self._open.enter_context(temporary.open("wb"))
        temporary = self._open.enter_context(files.replacing(with_ending(self._stem, ".idx")))
        self._index = self._open.enter_context(temporary.open("wb"))
        self._index.write(IDX_DTYPE.type(0).tobytes())
        return self

    def write(self, ids: Sequence[int], *, n_bytes: int, n_documents: int) -> None:
        """Appends `ids`, the tokens of `n_bytes` bytes of text; one document ends with them, or none."""
        assert n_documents in (0, 1)
        wide = np.asarray(ids, dtype=np.int64)
        # An id beyond the vocabulary would be cut to 16 bits in silence, or crash an embedding much later.
        assert wide.size == 0 or (wide.min() >= 0 and wide.max() < self._vocab_size), "id out of vocabulary"
        raw = wide.astype(self._dtype).tobytes()
        self._file.write(raw)
        self._digest.update(raw)
        self._n_tokens += wide.size
        self._n_bytes += n_bytes
        self._n_documents += n_documents
        if n_documents:
            self._index.write(IDX_DTYPE.type(self._n_tokens).tobytes())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Last in, first out: the .bin is closed, then gets its name; or goes, when the block failed.
        self._open.__exit__(kind, error, trace)
        if kind is not None:
            return
        self.info = PackedInfo(
            dtype=self._dtype.name,
            n_tokens=self._n_tokens,
            n_bytes=self._n_bytes,
            n_documents=self._n_documents,
            vocab_size=self._vocab_size,
            sha256=self._digest.hexdigest(),
        )
        # The sidecar last: a new .bin beside an old .json does not match its sha256 and is refused.
        files.write_json(with_ending(self._stem, ".json"), asdict(self.info))


def pack(
    stem: Path, texts: Iterable[str], tokenizer: Tokenizer, advance: Callable[[int], None] = lambda _: None
) -> PackedInfo:
    """Tokenises documents into ``stem.bin``, ``.idx`` and ``.json``, each document followed by a separator.

    Args:
        stem: the files' path without its ending.
        texts: the documents; read once, in order, never all in memory.
        tokenizer: whose ids to write. Documents end with its `eos_id`, or a blank line when it has none.
        advance: called with the UTF-8 bytes done since the last call.
    """
    end = [tokenizer.eos_id] if tokenizer.eos_id is not None else tokenizer.encode(DOCUMENT_BREAK)
    with PackedWriter(stem, tokenizer.vocab_size) as writer:
        group: list[str] = []
        ends: list[bool] = []
        waiting = 0

        def flush() -> None:
            nonlocal waiting
            for part, last, ids in zip(group, ends, encode_batch(tokenizer, group), strict=True):
                n_bytes = len(part.encode("utf-8", "surrogatepass"))
                writer.write([*ids, *end] if last else ids, n_bytes=n_bytes, n_documents=int(last))
                advance(n_bytes)
            group.clear()
            ends.clear()
            waiting = 0

        for text in texts:
            parts = list(pieces(text))
            group += parts
            ends += [False] * (len(parts) - 1) + [True] * bool(parts)
            waiting += len(text)
            if waiting >= GROUP_CHARACTERS:
                flush()
        flush()
    return writer.info


def tokens_of(text: str, tokenizer: Tokenizer, advance: Callable[[int], None] = lambda _: None) -> Ids:
    """The ids of one text, in memory; `advance` is called with the characters done since the last call."""
    dtype = id_dtype(tokenizer.vocab_size)
    found = [np.empty(0, dtype)]
    for group in pieces(text, GROUP_CHARACTERS):
        found += [np.array(ids, dtype) for ids in encode_batch(tokenizer, list(pieces(group)))]
        advance(len(group))
    return np.concatenate(found)


def with_ending(stem: Path, ending: str) -> Path:
    """``stem.ending``; unlike `Path.with_suffix` it keeps a dot in the stem."""
    return stem.with_name(stem.name + ending)
