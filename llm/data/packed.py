"""Token ids of a corpus in one flat file, mapped into memory and cut into windows.

Two files a split: ``train.bin``, little-endian uint16 (uint32 above 65,536 ids), and ``train.json``, what
is in it and its sha256. Any window of a file of any size costs one small read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from llm.data.boundaries import AfterId, Ends, numbered
from llm.data.packing import Ids, PackedInfo, id_dtype, with_ending
from llm.files import read_json, sha256_file
from llm.tokenizers.base import load
from llm.types import IGNORE, Batch, ConfigError, Splits, Tokenizer

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
        tokens: Ids,
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


def open_packed(stem: Path, *, key: str = "path", verify: bool = True) -> tuple[Ids, PackedInfo]:
    """The tokens that `PackedWriter` wrote, mapped into memory.

    Args:
        stem: the files' path without its ending.
        key: the config key to name in errors.
        verify: also compare the sha256 (about a second a gigabyte); sizes are always compared.

    Raises:
        ConfigError: when a file is missing, cut short, or not what its sidecar says.
    """
    binary, info = with_ending(stem, ".bin"), _read_info(with_ending(stem, ".json"), key)
    dtype = np.dtype(info.dtype).newbyteorder("<")
    try:
        size = binary.stat().st_size
    except OSError as error:
        raise ConfigError(
            key, binary, f"cannot be read ({error.strerror}); run task=tokenize again"
        ) from error
    if size != info.n_tokens * dtype.itemsize:
        mend = f"{size} bytes, but its .json says {info.n_tokens * dtype.itemsize}; run task=tokenize again"
        raise ConfigError(key, binary, mend)
    if info.n_tokens < 2:
        raise ConfigError(
            key, binary, f"{info.n_tokens} tokens; at least 2 are needed to predict one from another"
        )
    if verify and sha256_file(binary) != info.sha256:
        raise ConfigError(
            key, binary, "damaged: its sha256 is not the one in its .json; run task=tokenize again"
        )
    return np.memmap(binary, dtype=dtype, mode="r"), info


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
        path: the directory with ``tokenizer/``, ``train.bin`` and ``validation.bin``.
        seq_len: tokens in a training sequence.
        verify: compare the sha256 of the tokens when they are opened (about a second a gigabyte).
        document_mask: whether tokens see those of their own document only, and count places from its first.
    """

    def __init__(
        self,
        path: str,
        seq_len: Annotated[int, Field(ge=1)],
        verify: bool = True,
        document_mask: bool = False,
    ) -> None:
        self.path, self.seq_len, self.verify = path, seq_len, verify
        self.document_mask = document_mask

    def load(self, make_tokenizer: Callable[[Iterable[str]], Tokenizer], cache: Path) -> Splits:  # noqa: ARG002
        """Opens both splits. The tokenizer is the one that made them; `make_tokenizer` is not called.

        Raises:
            ConfigError: when a file is missing, cut short, damaged, or does not belong to the others; for a
                `document_mask` where no id ends a document.
        """
        directory = Path(self.path).expanduser()
        if not directory.is_dir():
            raise ConfigError(
                "path", self.path, "no such directory; give the output directory of task=tokenize"
            )
        try:
            tokenizer = load(directory / "tokenizer")
            train, validation = (self._open(directory / split, tokenizer) for split in SPLITS)
        except ConfigError as error:
            if error.key == "document_mask":
                raise
            raise ConfigError("path", self.path, f"{error.value}: {error.mend}") from error
        require_a_window(train)
        return Splits(train, validation, tokenizer)

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
            digests = [_read_info(directory / f"{split}.json", "path").sha256 for split in SPLITS]
        except ConfigError as error:
            raise ConfigError("path", self.path, f"{error.value}: {error.mend}") from error
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _read_info(file: Path, key: str) -> PackedInfo:
    try:
        info = PackedInfo(**read_json(file))
    except OSError as error:
        mend = f"cannot be read ({error.strerror}); give the output directory of task=tokenize"
        raise ConfigError(key, file, mend) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(
            key, file, "damaged, not the sidecar of packed tokens; run task=tokenize again"
        ) from error
    if info.dtype not in ("uint16", "uint32") or info.dtype != id_dtype(info.vocab_size).name:
        raise ConfigError(key, file, f"damaged, ids of type {info.dtype!r}; run task=tokenize again")
    return info
