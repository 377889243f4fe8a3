"""Documents of a corpus on disk, read in order and a few at a time: a parquet column, or one text file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llm.inputs import read_text
from llm.tokenizers.base import pieces
from llm.types import ConfigError

ROWS_AT_ONCE = 2048
SAMPLE_SEED = 0
"""Fixed: runs that differ in their seed alone should share their tokens."""


class Documents:
    """The texts of a parquet file (column ``text``, one document a row), or a text file as one document.

    Args:
        path: ``.parquet``, or UTF-8 text, plain or ``.gz``.
        key: the config key to name in errors.

    Raises:
        ConfigError: when the file is missing, damaged, has no such column, or holds no text.
    """

    def __init__(self, path: str, *, key: str) -> None:
        self._path, self._key = Path(path).expanduser(), key
        self._text: str | None = None
        if {".jsonl", ".ndjson", ".json", ".csv"} & set(self._path.suffixes):
            mend = "rows of JSON or CSV are no text; task=curate makes a parquet file of them"
            raise ConfigError(key, path, mend)
        if self._path.suffix == ".parquet":
            self._n_rows, self.n_bytes = self._measure(path)
        else:
            self._text = read_text(path, key=key)
            self._n_rows, self.n_bytes = 1, len(self._text.encode())
        if not self.n_bytes:
            raise ConfigError(key, path, "has no text in it")

    def _measure(self, path: str) -> tuple[int, int]:
        if not self._path.is_file():
            raise ConfigError(self._key, path, "no such file; a relative path starts where you run from")
        try:
            frame = pl.scan_parquet(self._path, glob=False)
            columns = frame.collect_schema()
            if columns.get("text") != pl.String:
                mend = f"needs a column `text` of strings; it has {', '.join(columns.names()) or 'none'}"
                raise ConfigError(self._key, path, mend)
            rows, n_bytes = (
                frame.select(pl.len(), pl.col("text").str.len_bytes().sum().alias("sum")).collect().row(0)
            )
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(self._key, path, f"damaged, or not a parquet file ({reason})") from error
        return int(rows), int(n_bytes)

    def __iter__(self) -> Iterator[str]:
        """The texts in the file's order."""
        return self.rows(0, self._n_rows)

    def rows(self, first: int, n_rows: int) -> Iterator[str]:
        """The texts of `n_rows` rows from row `first` on; a row without a text gives none."""
        if self._text is not None:
            yield from [self._text][first : first + n_rows]
            return
        texts = pl.scan_parquet(self._path, glob=False).select("text")
        for start in range(first, first + n_rows, ROWS_AT_ONCE):
            column = texts.slice(start, min(ROWS_AT_ONCE, first + n_rows - start)).collect()["text"]
            yield from (text for text in column if text)

    def row_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes of the text in each row."""
        if self._text is not None:
            return np.array([self.n_bytes], dtype=np.int64)
        lengths = pl.scan_parquet(self._path, glob=False).select(pl.col("text").str.len_bytes().fill_null(0))
        return lengths.collect(engine="streaming")["text"].cast(pl.Int64).to_numpy()

    def sample(self, n_bytes: int) -> Iterator[str]:
        """About `n_bytes` of the texts: random documents (parts of a single text), always the same."""
        parts = iter(self) if self._text is None else pieces(self._text)
        share = min(1.0, n_bytes / self.n_bytes)
        bits = np.random.PCG64(SAMPLE_SEED)
        for number, text in enumerate(parts):
            # The first is always in, or a sample of few documents could be empty.
            if int(bits.random_raw()) < share * 2**64 or number == 0:
                yield text
