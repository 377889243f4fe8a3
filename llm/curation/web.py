"""A file from the Web as a source: fetched once, checked against its sha256, and read like any other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from llm.curation.base import StreamedSource
from llm.curation.documents import Streamed
from llm.files import cache_directory, digest
from llm.runs.download import obtain


class WebFile(Streamed):
    """A file at a URL, kept in ``$XDG_CACHE_HOME/llm-experiments`` once it was fetched.

    The documents' provenance begins with the URL instead of the file's name.

    Args:
        url: Where it is.
        sha256: Of the file, 64 hexadecimal digits; another file is refused.
        reader: What reads it: a source's config without its path, and `_partial_: true`.

    Raises:
        ConfigError: when first read: it cannot be fetched, or is another file.
    """

    def __init__(
        self,
        url: str,
        sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")],
        reader: Callable[..., StreamedSource],
    ) -> None:
        self.url, self.sha256, self.reader = url, sha256, reader

    @functools.cached_property
    def _file(self) -> Path:
        return obtain(self.url, self.sha256, cache_directory())

    @functools.cached_property
    def _source(self) -> StreamedSource:
        return self.reader(path=str(self._file))

    def parts(self) -> Sequence[str]:
        """Those of the reader."""
        return self._source.parts()

    def read(self, part: str) -> Iterator[pl.DataFrame]:
        """Frames of the reader, whose names of the file in the cache become those at the URL."""
        name = self._file.name
        short = name.partition("-")[2]
        for frame in self._source.read(part):
            yield frame.with_columns(
                pl.col("id", "source").str.replace(name, short, literal=True),
                pl.col("provenance").str.replace(name, self.url, literal=True),
            )

    def fingerprint(self) -> str:
        """The file's sha256 and the reader's settings; nothing is fetched for it."""
        return digest([self.url, self.sha256, _settings(self.reader)])


def _settings(reader: Any) -> object:
    if isinstance(reader, functools.partial):
        return [_settings(reader.func), reader.keywords]
    return f"{reader.__module__}.{reader.__qualname__}"
