"""Documents as readers make them: one by one or in frames, with a verdict on those that are not sound."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl

from llm.curation.base import DOCUMENT_COLUMNS
from llm.curation.characters import without_surrogates
from llm.types import ConfigError

FRAME_CHARS = 1 << 24
DOCUMENT_CHARS = 300
"""What a document weighs beside its text, or a frame of empty ones would know no end."""
EXCERPT_CHARS = 500

SCHEMA = {
    **dict.fromkeys(DOCUMENT_COLUMNS, pl.String()),
    "keep": pl.Boolean(),
    "reason": pl.String(),
    "score": pl.Float64(),
    "match": pl.String(),
}
"""Columns of every frame a reader gives."""


class Document(NamedTuple):
    """A document, or with `keep` false what could not become one: then `text` is an excerpt."""

    id: str
    text: str
    source: str
    domain: str
    licence: str | None = None
    provenance: str | None = None
    keep: bool = True
    reason: str | None = None
    score: float | None = None
    match: str | None = None


def excerpt(raw: str | bytes) -> str:
    """The beginning of something, fit to be stored."""
    text = raw[: 4 * EXCERPT_CHARS].decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    text = text[:EXCERPT_CHARS].replace("\0", "")
    return text.encode("utf-8", "replace").decode("utf-8")


def frame(documents: Sequence[Document]) -> pl.DataFrame:
    """Documents as a frame; column by column, for polars looks at each value of rows."""
    try:
        return _frame(documents)
    except UnicodeEncodeError:
        # so seldom that looking for it in every text would cost more
        return _frame([_encodable(one) for one in documents])


def _frame(documents: Sequence[Document]) -> pl.DataFrame:
    columns: Iterable[Sequence[object]] = zip(*documents, strict=True) if documents else [()] * len(SCHEMA)
    return pl.DataFrame(
        [pl.Series(name, values, SCHEMA[name]) for name, values in zip(SCHEMA, columns, strict=True)]
    )


def _encodable(one: Document) -> Document:
    """The document with U+FFFD for lone surrogates; `lone_surrogates` says that its text had some."""
    changed: dict[str, Any] = {
        field: without_surrogates(value) for field, value in one._asdict().items() if isinstance(value, str)
    }
    if changed["text"] != one.text and one.reason is None:
        changed["reason"] = "lone_surrogates"
    return one._replace(**changed)


def batched(found: Iterable[Document | pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Frames of about 16 million characters; frames that come are handed on in their place."""
    held: list[Document] = []
    n_held = 0
    for one in found:
        if isinstance(one, Document):
            held.append(one)
            n_held += len(one.text) + DOCUMENT_CHARS
        if held and (n_held >= FRAME_CHARS or not isinstance(one, Document)):
            yield frame(held)
            held, n_held = [], 0
        if not isinstance(one, Document):
            yield one
    if held:
        yield frame(held)


def require(module: str, extra: str, key: str, value: object) -> None:
    """Sees that an optional package is there, without importing it.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError(key, value, f"needs {module}: pip install -e '.[{extra}]'")


class Streamed(ABC):
    """A `StreamedSource` that can also give all its documents at once, for tests and notebooks."""

    @abstractmethod
    def parts(self) -> Sequence[str]:
        """Names of independent parts, in a fixed order."""

    @abstractmethod
    def read(self, part: str) -> Iterator[pl.DataFrame]:
        """The part's documents in frames of the columns `SCHEMA`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest that changes when the documents may have changed."""

    def documents(self) -> pl.LazyFrame:
        """What is kept of all parts, in memory: id, text, source, domain, licence, provenance."""
        frames = [found for part in self.parts() for found in self.read(part)]
        return pl.concat([frame([]), *frames]).lazy().filter("keep").select(DOCUMENT_COLUMNS)
