"""Pairs of a text to read and a text to write: translation, summaries, questions and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from llm.data.conversations import as_paths, report_long, tokenizing
from llm.data.packing import id_dtype
from llm.data.rows import MULTIPLE
from llm.inputs import digest, read_jsonl
from llm.types import IGNORE, Batch, ConfigError, Splits, Tokenizer


class Pair(NamedTuple):
    """What is read and what is written."""

    source: str
    target: str


class PairRows:
    """Pairs as padded rows, one each. Implements `llm.types.Dataset`.

    Args:
        sources: ids, each with its end.
        targets: the same.
        vocab_size: above every id.
        start_id: what the decoder reads first.
        seq_len: none is longer.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        *,
        vocab_size: int,
        start_id: int,
        seq_len: int,
    ) -> None:
        self._sources, self._targets = _Flat(sources, vocab_size), _Flat(targets, vocab_size)
        self.start_id, self.seq_len = start_id, seq_len

    def __len__(self) -> int:
        return len(self._sources)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The pairs `indices`, padded at the end; ``^`` is `start_id`, ``.`` the end, ``0`` padding::

        source           a b c .      tokens     ^ x y z
                         d e . 0                 ^ w . 0
        source_padding   1 1 1 1      targets    x y z .
                         1 1 1 0                 w . - -
        """
        source, source_padding = self._sources.padded(indices, self.seq_len)
        targets, written = self._targets.padded(indices, self.seq_len)
        tokens = torch.cat((torch.full((len(indices), 1), self.start_id), targets[:, :-1]), 1)
        return Batch(
            tokens=tokens,
            targets=targets.masked_fill(~written, IGNORE),
            source=source,
            source_padding=source_padding,
        )

    @property
    def bytes_per_target(self) -> float | None:
        """None: targets include the end, which stands for no text."""
        return None


class _Flat:
    """Lists of ids of different lengths in one array."""

    def __init__(self, rows: Sequence[Sequence[int]], vocab_size: int) -> None:
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        self.ids = np.fromiter(chain.from_iterable(rows), id_dtype(vocab_size), int(lengths.sum()))
        self.offsets: NDArray[np.int64] = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def padded(self, numbers: Sequence[int], seq_len: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As wide as the longest, up to a whole `MULTIPLE`, at most `seq_len`; and where there is text."""
        rows = [self.ids[self.offsets[n] : self.offsets[n + 1]] for n in numbers]
        longest = max(len(row) for row in rows)
        width = max(min(-(-longest // MULTIPLE) * MULTIPLE, seq_len), longest)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in zip(ids, rows, strict=True):
            place[: len(row)] = row
        known = np.arange(width) < np.array([len(row) for row in rows])[:, None]
        return torch.from_numpy(ids), torch.from_numpy(known)


class PairData:
    """JSON lines of ``{"source": ..., "target": ...}``. A `data` component.

    Args:
        train: file or files to train on.
        validation: file or files to measure on.
        seq_len: the longest source, and the longest target, in tokens, their ends included.
        source_field: name of the field with the text to read.
        target_field: name of the field with the text to write.
        start_id: what the decoder reads first, the model's `start_id`.
        long: what to do with a pair of which a side is longer: cut that side's end off, or drop the pair.
            Both are counted and reported.
    """

    def __init__(
        self,
        train: str | list[str],
        validation: str | list[str],
        seq_len: Annotated[int, Field(ge=2)],
        source_field: str = "source",
        target_field: str = "target",
        start_id: Annotated[int, Field(ge=0)] = 0,
        long: Literal["truncate", "drop"] = "truncate",
    ) -> None:
        self.train, self.validation = as_paths(train), as_paths(validation)
        self.seq_len, self.start_id, self.long = seq_len, start_id, long
        self.source_field, self.target_field = source_field, target_field

    def load(self, make_tokenizer: Callable[[Iterable[str]], Tokenizer], cache: Path) -> Splits:  # noqa: ARG002
        """Reads and tokenises both splits.

        Raises:
            ConfigError: for a bad row, with file, line and what is missing; for a tokenizer without an end;
                when no pair fits.
        """
        train, validation = (
            list(read_pairs(paths, self.source_field, self.target_field, key=key))
            for paths, key in ((self.train, "train"), (self.validation, "validation"))
        )
        tokenizer = make_tokenizer(text for pair in train for text in pair)
        if tokenizer.eos_id is None:
            mend = (
                "has no id that ends a text, so what is written would never end; use tokenizer=bpe or byte, "
                "or tokenizer=character with tokenizer.special_tokens=true"
            )
            raise ConfigError("tokenizer", type(tokenizer).__name__, mend)
        return Splits(
            self._rows(train, tokenizer, tokenizer.eos_id, "train"),
            self._rows(validation, tokenizer, tokenizer.eos_id, "validation"),
            tokenizer,
        )

    def _rows(self, pairs: Sequence[Pair], tokenizer: Tokenizer, end: int, split: str) -> PairRows:
        sources: list[list[int]] = []
        targets: list[list[int]] = []
        n_truncated = n_dropped = 0
        with tokenizing(split, len(pairs)) as progress:
            for pair in pairs:
                source, target = ([*tokenizer.encode(text), end] for text in pair)
                too_long = max(len(source), len(target)) > self.seq_len
                if not too_long or self.long == "truncate":
                    # A source cut off still ends; a target does not, or the model would learn to stop.
                    sources.append(
                        source if len(source) <= self.seq_len else [*source[: self.seq_len - 1], end]
                    )
                    targets.append(target[: self.seq_len])
                    n_truncated += too_long
                else:
                    n_dropped += 1
                progress.advance()
        report_long(split, "pairs", len(pairs), self.seq_len, n_truncated, n_dropped)
        return PairRows(
            sources,
            targets,
            vocab_size=tokenizer.vocab_size,
            start_id=self.start_id,
            seq_len=self.seq_len,
        )

    def fingerprint(self) -> str:
        """A digest of the files of both splits."""
        return digest([*self.train, *self.validation], key="train")


def read_pairs(paths: Sequence[str], source_field: str, target_field: str, *, key: str) -> Iterator[Pair]:
    """The pairs of JSON-lines files, checked: both sides are text, and there is something to write."""
    for place, row in read_jsonl(paths, key=key):
        for name, what in ((source_field, "source_field"), (target_field, "target_field")):
            if name not in row:
                has = ", ".join(row) or "nothing"
                raise place.wrong(f"`{name}` is missing, the row has {has}; name the field with data.{what}")
            if not isinstance(row[name], str):
                raise place.wrong(f"`{name}` is a {type(row[name]).__name__}; text is needed")
        if not row[target_field].strip():
            raise place.wrong(f"`{target_field}` is empty; there is nothing to learn")
        yield Pair(row[source_field], row[target_field])
