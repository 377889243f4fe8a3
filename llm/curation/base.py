"""The nouns of curation: where documents come from and what a step may say about them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import polars as pl

DOCUMENT_COLUMNS = ("id", "text", "source", "domain")
"""What every reader gives. A reader may add `group`: documents of one group stay on one side of a split."""

VERDICT_COLUMNS = ("keep", "reason", "score", "match")
"""What every step adds. `keep` decides; `reason`, `score` and `match` (the id of the document this one
repeats) say why, and go to the ledger."""


class Source(Protocol):
    """Where documents come from."""

    def documents(self) -> pl.LazyFrame:
        """One row a document: id (unique), text, source, domain, and `group` when some belong together.

        Raises:
            ConfigError: a file is missing, empty, not text or broken.
        """
        ...

    def fingerprint(self) -> str:
        """A digest that changes when the documents may have changed; cheap, for every start asks for it."""
        ...


class Step(Protocol):
    """One judgement of the corpus. It only annotates; the runner removes rows and keeps the ledger."""

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """The same rows with `keep, reason, score, match` added (null where a step has nothing to say).

        A step may add further columns that describe a document, such as its language.
        """
        ...


@dataclass(frozen=True, slots=True)
class DocumentedObject:
    """A function, class, method or property with documentation, as a user would look it up.

    name: shortest public dotted name. parent: what it is a member of (module or class), so objects with
    one parent are siblings. group: the part of the package that goes to one side of a split as a whole.
    doc: documentation as plain text. summary: its first sentence or two. parameters: name and description.
    """

    name: str
    kind: str
    signature: str
    doc: str
    summary: str
    parent: str
    group: str
    package: str
    parameters: tuple[tuple[str, str], ...] = ()
    returns: str = ""

    @property
    def leaf(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


@runtime_checkable
class ObjectSource(Protocol):
    """A source that also knows the documented objects behind its documents."""

    @property
    def n_files(self) -> int:
        """How many files reading the objects opens, for progress."""
        ...

    def objects(self, advance: Callable[[], object] = ...) -> Sequence[DocumentedObject]:
        """The objects, read once; `advance` is called after each file."""
        ...


def order_key(seed: int, *parts: object) -> int:
    """A fair 63-bit number that depends on nothing but its arguments: for seeded order and choice."""
    joined = "\x1f".join(map(str, (seed, *parts))).encode()
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "big") >> 1
