"""Labelled texts of a user's files, as a classifier learns from them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from llm.inputs import Place, digest, read_jsonl, read_text
from llm.types import ConfigError

ROWS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_PARAGRAPH = re.compile(r"\n\s*\n")


class Example(NamedTuple):
    """A text and what it is."""

    text: str
    label: str


class Examples(Protocol):
    """Where labelled texts come from."""

    training_only: bool

    def read(self) -> Iterator[Example]:
        """All of them, in the order of the files.

        Raises:
            ConfigError: a file is missing, broken or lacks a column.
        """
        ...

    def fingerprint(self) -> str:
        """A digest of the files."""
        ...


class LabelledRows:
    """Files with a column of texts and a column of labels: JSON lines, CSV, TSV (all also .gz), parquet.

    Args:
        paths: The files.
        text: Column of the text.
        label: Column of the label.
        rename: New names of labels, e.g. `{0: toxic, 1: toxic, 2: civil}`; rows of other labels, or without
            one, are left out. null keeps all labels as they are, and every row needs one.
        training_only: Learned from, never measured on.
    """

    def __init__(
        self,
        paths: Sequence[str],
        text: str = "text",
        label: str = "label",
        rename: Mapping[Any, str] | None = None,
        training_only: bool = False,
    ) -> None:
        self.paths, self.text, self.label = [str(path) for path in paths], text, label
        self.rename = {str(old): str(new) for old, new in (rename or {}).items()}
        self.training_only = training_only

    def read(self) -> Iterator[Example]:
        """Rows with a text that is not blank."""
        for place, row in _rows(self.paths):
            found = _field(row, self.label, "label", place)
            label = str(found)
            if self.rename:
                if label not in self.rename:
                    continue
                label = self.rename[label]
            elif found is None:
                mend = f"no label at {place.path}:{place.line}; rename leaves out rows of other labels"
                raise ConfigError("label", self.label, mend)
            if text := _text(row, self.text, place):
                yield Example(text, label)

    def fingerprint(self) -> str:
        """A digest of the files."""
        return digest(self.paths, key="paths")


class OneLabel:
    """Files whose texts are all of one label. A row is a text; in a plain text file, a paragraph is.

    Args:
        paths: Files as of `LabelledRows`, or plain text (.txt, also .gz); none gives no example.
        label: What their texts are.
        text: Column of the text, where there are columns.
        min_words: Shorter texts (headings) are left out.
        training_only: Learned from, never measured on: text that is easy to tell would flatter the measures.
    """

    def __init__(
        self,
        paths: Sequence[str],
        label: str,
        text: str = "text",
        min_words: int = 1,
        training_only: bool = False,
    ) -> None:
        self.paths, self.label, self.text = [str(path) for path in paths], label, text
        self.min_words, self.training_only = min_words, training_only

    def read(self) -> Iterator[Example]:
        """Rows or paragraphs that are long enough."""
        for path in self.paths:
            if _suffix(path) in ROWS:
                texts: Iterator[str] = (_text(row, self.text, place) for place, row in _rows([path]))
            else:
                texts = iter(_PARAGRAPH.split(read_text(path, key="paths")))
            yield from (Example(text, self.label) for text in texts if len(text.split()) >= self.min_words)

    def fingerprint(self) -> str:
        """A digest of the files."""
        return digest(self.paths, key="paths") if self.paths else ""


def _suffix(path: str) -> str:
    return Path(path.removesuffix(".gz")).suffix.lower()


def _rows(paths: Sequence[str]) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Rows of files with columns, each with its place."""
    if not paths:
        raise ConfigError("paths", "[]", "needs at least one file")
    for path in paths:
        kind = _suffix(path)
        if kind in (".jsonl", ".ndjson"):
            yield from read_jsonl([path], key="paths")
        elif kind in (".csv", ".tsv"):
            yield from _csv(path, "\t" if kind == ".tsv" else ",")
        elif kind == ".parquet":
            yield from _parquet(path)
        else:
            raise ConfigError("paths", path, f"has no columns; give {', '.join(ROWS)}")


def _csv(path: str, delimiter: str) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    text = read_text(path, key="paths")
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a text may be a book
    lines = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    try:
        for row in lines:
            yield Place("paths", path, lines.line_num), row
    except csv.Error as error:
        raise Place("paths", path, lines.line_num).wrong(f"broken ({error})") from error


def _parquet(path: str) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    import polars as pl

    try:
        frame = pl.read_parquet(Path(path).expanduser(), glob=False)
    except FileNotFoundError:
        raise ConfigError("paths", path, "no such file; a relative path starts where you run from") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError("paths", path, f"is not a parquet file ({error})") from None
    for number, row in enumerate(frame.iter_rows(named=True), start=1):
        yield Place("paths", path, number), row


def _field(row: Mapping[str, Any], column: str, key: str, place: Place) -> Any:
    if column not in row:
        names = ", ".join(map(str, row)) or "none"
        raise ConfigError(key, column, f"no such column at {place.path}:{place.line}; it has {names}")
    return row[column]


def _text(row: Mapping[str, Any], column: str, place: Place) -> str:
    value = _field(row, column, "text", place)
    if value is None:
        return ""
    if not isinstance(value, str):
        mend = f"is not text at {place.path}:{place.line} but {type(value).__name__}"
        raise ConfigError("text", column, mend)
    return value.strip()
