"""Token ids of a corpus, mapped into memory and cut into windows, or packed document by document.

Three files a split: ``train.bin``, little-endian uint16 (uint32 above 65,536 ids), ``train.idx``, where
documents begin in it, and ``train.json``, what is in them and the sha256. A large corpus has several shards
in a folder ``train``. Any window of files of any size costs one small read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from llm.data.best_fit import BestFitTokens, bounds_by_end
from llm.data.boundaries import AfterId, Ends, numbered
from llm.data.mapped import Tokens, document_bounds, open_packed, read_info
from llm.data.packing import Ids, with_ending
from llm.tokenizers.base import load
from llm.types import IGNORE, Batch, ConfigError, Dataset, Splits, Tokenizer

SPLITS = ("train", "validation")


class PackedTokens:
    """Windows of `seq_len` tokens and their successors, side by side. Implements `llm.types.Dataset`.

    With N tokens there are N - 1 targets, and every target is in exactly one window, so a loss over all
    windows is the loss over the whole split::

        tokens    t0 t1 t2 | t3 t4 t5 | t6 .  .       N = 8, seq_len = 3
        targets   t1 t2 t3 | t4 t5 t6 | t7 -  -       - is IGNORE: no loss there

    `shifted` turns the ring t0 ... t7, t0 ... by some places first, so that epochs see other boundaries. (One
    target in an epoch is then the first token after the last, where the corpus closes its ring.)

    With `ends` a batch also says which document each token belongs to, so that a model keeps them apart.
    Targets stay what they are: a document's last token is still asked for the next document's first, which it
    can only guess, as generation from an empty prompt has to.

    Args:
        tokens: of the whole corpus, one document after the other.
        seq_len: tokens in a window.
        n_bytes: UTF-8 bytes of the corpus.
        offset: how far the ring is turned.
        ends: which of the ids end a document; None makes no difference between documents.
    """

    def __init__(
        self,
        tokens: Tokens,
        seq_len: int,
        *,
        n_bytes: int | None = None,
        offset: int = 0,
        ends: Ends | None = None,
    ) -> None:
        if seq_len < 1:
            raise ConfigError("seq_len", seq_len, "must be at least 1")
        assert len(tokens) >= 2, "one token has no successor to predict"
        self.tokens, self.seq_len = tokens, seq_len
        self._n_bytes, self._offset, self._ends = n_bytes, offset % len(tokens), ends

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1) // self.seq_len)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The windows `indices`: tokens and targets of `seq_len` each."""
        n_targets = len(self.tokens) - 1
        tokens = np.zeros((len(indices), self.seq_len), dtype=np.int64)
        targets = np.full((len(indices), self.seq_len), IGNORE, dtype=np.int64)
        documents = None if self._ends is None else np.full_like(tokens, self.seq_len)
        for row, index in enumerate(indices):
            start = int(index) * self.seq_len
            assert 0 <= start < n_targets, f"window {index} of {len(self)}"
            length = min(self.seq_len, n_targets - start)
            window = self._ring(start + self._offset, length + 1)
            tokens[row, :length] = window[:-1]
            targets[row, :length] = window[1:]
            if documents is not None:
                documents[row, :length] = self._documents(start + self._offset, length)
        return Batch(
            tokens=torch.from_numpy(tokens),
            targets=torch.from_numpy(targets),
            documents=None if documents is None else torch.from_numpy(documents),
        )

    def _documents(self, start: int, length: int) -> NDArray[np.int64]:
        """Numbers of the documents of `length` tokens; their neighbours tell whether a blank line goes on."""
        assert self._ends is not None
        return numbered(self._ends(self._ring(start - 1, length + 2))[1:-1])

    def _ring(self, start: int, length: int) -> Ids:
        """`length` tokens from `start` on, going on at the front after the end."""
        n = len(self.tokens)
        start %= n
        part = self.tokens[start : start + length]
        return part if len(part) == length else np.concatenate([part, self.tokens[: length - len(part)]])

    def shifted(self, offset: int) -> PackedTokens:
        """The same corpus with its windows' boundaries moved by `offset` tokens, modulo `seq_len`."""
        return PackedTokens(
            self.tokens,
            self.seq_len,
            n_bytes=self._n_bytes,
            offset=offset % self.seq_len,
            ends=self._ends,
        )

    @property
    def bytes_per_target(self) -> float | None:
        """UTF-8 bytes of text per token: turns nats per token into bits per byte."""
        return None if self._n_bytes is None else self._n_bytes / len(self.tokens)


def require_a_window(train: PackedTokens) -> None:
    """Refuses sequences longer than the whole training text: they would be mostly padding.

    Raises:
        ConfigError: `seq_len` exceeds the number of targets.
    """
    n_targets = len(train.tokens) - 1
    if train.seq_len > n_targets:
        mend = f"the training text has {n_targets + 1:,} tokens; at most {n_targets}"
        raise ConfigError("seq_len", train.seq_len, mend)


class PackedData:
    """What task=tokenize left: a tokenizer and the packed tokens of both splits. A `data` component.

    Args:
        path: the directory with ``tokenizer/`` and the tokens of ``train`` and ``validation``.
        seq_len: tokens in a training sequence.
        verify: compare the sha256 of the tokens when they are opened (about a second a gigabyte).
        document_mask: whether tokens see those of their own document only, and count places from its first.
        packing: how documents become training sequences. ``concatenate``: one after the other, cut every
            `seq_len` tokens. ``best_fit``: cut where they are longer than `seq_len` only, and put together so
            that little is left empty (`llm.data.best_fit`). The validation split is always concatenated, so
            that losses can be compared.
        overlap: with ``best_fit``, how many tokens of a long document each further piece of it repeats from
            the piece before, as context without loss.
    """

    def __init__(
        self,
        path: str,
        seq_len: Annotated[int, Field(ge=1)],
        verify: bool = True,
        document_mask: bool = False,
        packing: Literal["concatenate", "best_fit"] = "concatenate",
        overlap: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.check_arguments(seq_len, packing, overlap)
        self.path, self.seq_len, self.verify = path, seq_len, verify
        self.document_mask, self.packing, self.overlap = document_mask, packing, overlap

    @staticmethod
    def check_arguments(seq_len: int, packing: str = "concatenate", overlap: int = 0) -> None:
        """An overlap belongs to ``best_fit``, and leaves something new in each piece."""
        if overlap and packing != "best_fit":
            raise ConfigError("overlap", overlap, "only packing=best_fit repeats tokens; leave it 0")
        if overlap >= seq_len:
            raise ConfigError("overlap", overlap, f"a piece has seq_len={seq_len} tokens; give fewer")

    def load(self, make_tokenizer: Callable[[Iterable[str]], Tokenizer], cache: Path) -> Splits:  # noqa: ARG002
        """Opens both splits. The tokenizer is the one that made them; `make_tokenizer` is not called.

        Raises:
            ConfigError: when a file is missing, cut short, damaged, or does not belong to the others; for a
                `document_mask` or a `packing` that needs to know where documents end, and nothing says it.
        """
        directory = Path(self.path).expanduser()
        if not directory.is_dir():
            raise ConfigError(
                "path", self.path, "no such directory; give the output directory of task=tokenize"
            )
        try:
            tokenizer = load(directory / "tokenizer")
            train, validation = (self._open(directory / split, tokenizer) for split in SPLITS)
            chosen = self._packed(train, directory / SPLITS[0], tokenizer)
        except ConfigError as error:
            if error.key in ("document_mask", "packing", "seq_len"):
                raise
            raise ConfigError("path", self.path, f"{error.value}: {error.mend}") from error
        return Splits(chosen, validation, tokenizer)

    def _packed(self, train: PackedTokens, stem: Path, tokenizer: Tokenizer) -> Dataset:
        if self.packing == "concatenate":
            require_a_window(train)
            return train
        bounds = document_bounds(stem)
        if bounds is None and tokenizer.eos_id is not None:  # tokenised before there were indices
            bounds = bounds_by_end(train.tokens, tokenizer.eos_id)
        if bounds is None:
            mend = "nothing says where documents end; run task=tokenize again"
            raise ConfigError("packing", self.packing, mend)
        return BestFitTokens(
            train.tokens,
            bounds,
            self.seq_len,
            overlap=self.overlap,
            bytes_per_target=train.bytes_per_target,
            document_mask=self.document_mask,
        )

    def _ends(self, tokenizer: Tokenizer) -> Ends | None:
        if not self.document_mask:
            return None
        if tokenizer.eos_id is None:
            mend = (
                "the tokenizer has no end-of-text id, so that a document's end looks like a paragraph's; "
                "tokenize with tokenizer=bpe or byte"
            )
            raise ConfigError("document_mask", True, mend)
        return AfterId(tokenizer.eos_id)

    def _open(self, stem: Path, tokenizer: Tokenizer) -> PackedTokens:
        tokens, info = open_packed(stem, verify=self.verify)
        if info.vocab_size != tokenizer.vocab_size:
            mend = (
                f"its ids are of a vocabulary of {info.vocab_size}, the tokenizer beside it has "
                f"{tokenizer.vocab_size}; run task=tokenize again"
            )
            raise ConfigError("path", with_ending(stem, ".bin"), mend)
        return PackedTokens(tokens, self.seq_len, n_bytes=info.n_bytes, ends=self._ends(tokenizer))

    def fingerprint(self) -> str:
        """A digest of the tokens of both splits, as their sidecars have it."""
        directory = Path(self.path).expanduser()
        try:
            digests = [read_info(directory / f"{split}.json", "path")[0].sha256 for split in SPLITS]
        except ConfigError as error:
            raise ConfigError("path", self.path, f"{error.value}: {error.mend}") from error
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()
