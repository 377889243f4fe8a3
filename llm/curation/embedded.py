"""The corpus every machine already has: source and documentation of python and of installed packages."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.curation import packages as located
from llm.curation.base import DocumentedObject, order_key
from llm.curation.objects import read_objects
from llm.files import digest
from llm.types import ConfigError

MAX_FILE_BYTES = 120_000
"""Longer source files are tables and generated code more often than not."""


class EmbeddedCorpus:
    """Documents of three domains, read as files and never imported.

    `docs`: one document an object, its name, signature and documentation. `reference`: the language
    reference that comes with python as pydoc's topics. `code`: whole source files, chosen by hash.

    Args:
        packages: Installed packages to read; `stdlib` is python's own library.
        max_doc_bytes: UTF-8 bytes of documentation at most (objects chosen by hash).
        max_source_bytes: UTF-8 bytes of source files at most; 0 for documentation only.
        seed: Decides the choice where a maximum bites.
    """

    def __init__(
        self,
        packages: Sequence[str] = ("stdlib", "torch", "numpy", "polars"),
        *,
        max_doc_bytes: Annotated[int, Field(ge=0)] = 8_000_000,
        max_source_bytes: Annotated[int, Field(ge=0)] = 2_000_000,
        seed: int = 0,
    ) -> None:
        if not packages:
            raise ConfigError("packages", list(packages), "names no package; e.g. [stdlib]")
        self.packages = tuple(packages)
        self.max_doc_bytes, self.max_source_bytes, self.seed = max_doc_bytes, max_source_bytes, seed
        self._read: list[DocumentedObject] | None = None

    @cached_property
    def files(self) -> list[located.ModuleFile]:
        """Every source file looked at.

        Raises:
            ConfigError: one of the packages is not installed.
        """
        return [file for package in self.packages for file in located.package_files(package)]

    @property
    def n_files(self) -> int:
        """How many files reading the objects will open."""
        return len(self.files)

    def objects(self, advance: Callable[[], object] = lambda: None) -> Sequence[DocumentedObject]:
        """The documented objects, by package and name; read once. `advance` is called after each file."""
        if self._read is None:
            self._read = [
                one
                for package in self.packages
                for one in read_objects([f for f in self.files if f.package == package], advance)
            ]
        return self._read

    def fingerprint(self) -> str:
        """Versions, and names and sizes of the files: no file is opened."""
        parts: list[object] = [self.max_doc_bytes, self.max_source_bytes, self.seed]
        parts += [f"{package} {located.version(package)}" for package in self.packages]
        parts += [f"{file.name} {file.n_bytes}" for file in self.files]
        return digest(parts)

    def documents(self) -> pl.LazyFrame:
        """Rows id, text, source (the package), domain, group (the part of the package split as one)."""
        rows = [*self._documentation(), *self._reference(), *self._source()]
        columns = ("id", "text", "source", "domain", "group")
        return pl.LazyFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")

    def _documentation(self) -> Iterator[tuple[str, ...]]:
        texts = [(one, f"{one.name}{one.signature}\n\n{one.doc}") for one in self.objects()]
        kept = _within([(one.name, len(text.encode())) for one, text in texts], self.max_doc_bytes, self.seed)
        for one, text in texts:
            if one.name in kept:
                yield f"docs:{one.name}", text, one.package, "docs", one.group

    def _reference(self) -> Iterator[tuple[str, ...]]:
        source = located.topics() if located.STANDARD_LIBRARY in self.packages else ""
        tree = ast.parse(source)
        for node in tree.body:
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            if isinstance(value, ast.Dict):
                for key, text in zip(value.keys, value.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(text, ast.Constant):
                        topic = str(key.value)
                        yield (
                            f"reference:{topic}",
                            str(text.value).strip(),
                            "stdlib",
                            "reference",
                            f"topics.{topic}",
                        )

    def _source(self) -> Iterator[tuple[str, ...]]:
        small = [file for file in self.files if file.n_bytes <= MAX_FILE_BYTES]
        kept = _within([(file.name, file.n_bytes) for file in small], self.max_source_bytes, self.seed)
        for file in small:
            if file.name in kept:
                yield f"code:{file.name}", file.read(), file.package, "code", file.group


def _within(sizes: Sequence[tuple[str, int]], limit: int, seed: int) -> set[str]:
    """Names in the order of their hash for as long as their sizes fit together."""
    kept, total = set(), 0
    for name, size in sorted(sizes, key=lambda entry: (order_key(seed, "within", entry[0]), entry[0])):
        if total + size <= limit:
            kept.add(name)
            total += size
    return kept
