"""The nouns of curation: where documents come from and what a step may say about them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import polars as pl

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

DOCUMENT_COLUMNS = ("id", "text", "source", "domain", "licence", "provenance")
"""What the runner gives every step. `source` is the file or the package that the document lies in, and not
the name of the reader that found it (see `Corpus.sources`). `licence` is an SPDX identifier, `provenance` a
URL or a file with the line or the record in it; both may be null. A reader may leave these two out, and may
add further columns; `group` among them means that documents of one group stay on one side of a split."""

VERDICT_COLUMNS = ("keep", "reason", "score", "match")
"""What every step adds. `keep` decides; `reason`, `score` and `match` (the id of the document this one
repeats) say why, and go to the ledger. A kept document has a reason only when its text was altered."""


class Source(Protocol):
    """Where documents come from, for a source that fits into memory."""

    def documents(self) -> pl.LazyFrame:
        """One row a document: id (unique), text, source, domain, and `group` when some belong together.

        Raises:
            ConfigError: a file is missing, empty, not text or broken.
        """
        ...

    def fingerprint(self) -> str:
        """A digest that changes when the documents may have changed; cheap, for every start asks for it."""
        ...


@runtime_checkable
class StreamedSource(Protocol):
    """A source that is read part by part, each part in any process, so that its size does not matter.

    A frame may carry the verdict columns: `keep` false for what could not become a document (a broken line, a
    text too large to hold: `text` is an excerpt then), `keep` true with a `reason` for what was repaired.
    """

    def parts(self) -> Sequence[str]:
        """Names of independent parts in a fixed order: files, groups of small files, ranges of large ones."""
        ...

    def read(self, part: str) -> Iterator[pl.DataFrame]:
        """The part's documents in frames of some megabytes, the same in every run."""
        ...

    def fingerprint(self) -> str:
        """As that of `Source`."""
        ...


class Step(Protocol):
    """One judgement of documents, each for itself. It annotates; the runner removes and keeps the ledger.

    It sees one shard of the corpus at a time, in any order and perhaps in another process: it must survive
    pickling, so a model is loaded when first needed and not kept in what is pickled. An optional method
    ``prepare(say)`` is called once before the first shard, in the main process, to fetch models or files
    (ConfigError when they cannot be had); ``say`` takes a line for people.
    """

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """The same rows in the same order with `keep, reason, score, match` added, null if nothing is said.

        A step may alter `text`, with a `reason`, and may add columns that describe a document, such as its
        language; columns that begin with an underscore are its own, and it drops them.
        """
        ...


@runtime_checkable
class Tagger(Protocol):
    """A step whose judgement rests on attributes of the text alone, measured once and kept.

    The runner measures them before `annotate`, or finds them from an earlier run under `tag_key` and the
    text, so a changed threshold measures nothing again. Attributes whose names begin with an underscore are
    dropped after the step; the others stay with the document, for later steps, mixtures and the result.
    """

    @property
    def attributes(self) -> Mapping[str, PolarsDataType]:
        """Names and types of the columns that `tag` gives."""
        ...

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        """One row a text, in their order; depends on nothing but the text and what `tag_key` names."""
        ...

    def tag_key(self) -> object:
        """Plain values (numbers, texts, lists) of all the attributes depend on, e.g. a model's digest."""
        ...


@runtime_checkable
class Reviewed(Protocol):
    """A step whose findings people want to look at; they become the table ``review/NAME.parquet``."""

    def review(self, documents: pl.DataFrame) -> pl.DataFrame:
        """What it found in these documents, a row a finding."""
        ...

    def unchecked(self) -> pl.DataFrame:
        """What it could not look for, in the same columns."""
        ...


@runtime_checkable
class Masking(Protocol):
    """A step that hides something, which the ledger's excerpts, looked at and passed on, must not show."""

    def mask(self, texts: pl.Series) -> pl.Series:
        """The excerpts as they may be shown."""
        ...


def with_attributes(step: Tagger, documents: pl.LazyFrame) -> pl.LazyFrame:
    """The documents with the step's attributes; what the runner has added already is not measured again."""
    present = set(documents.collect_schema().names())
    if present.issuperset(step.attributes):
        return documents
    frame = documents.collect()
    return frame.hstack(step.tag(frame["text"])).lazy()


@runtime_checkable
class CorpusStep(Protocol):
    """A judgement that compares documents with each other, in three acts so that memory stays bounded.

    `survey` notes of each shard what the whole must know, `decide` looks at all notes at once, and `apply`
    carries its decisions out shard by shard. It must survive pickling, and may have ``prepare(say)``.
    """

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """Notes on one shard, small beside the texts. Columns are the step's own; `row` numbers documents."""
        ...

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """What is to happen: columns `shard`, `row` (UInt32) and the step's own; untouched rows left out."""
        ...

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """One shard annotated like `Step.annotate` does; `decisions` are that shard's, without `shard`."""
        ...


@dataclass(frozen=True)
class Corpus:
    """A corpus in shards, as `CorpusStep.decide` sees it.

    shards: parquet files of documents, the very rows that `apply` will see; their names begin with the number
    of their source (`p00-`). surveys: the notes on each, in the same order. scratch: an empty folder for
    temporary files. advance: tells how many shards are done. say: takes a line for people.
    """

    shards: Sequence[Path]
    surveys: Sequence[Path]
    scratch: Path
    advance: Callable[[int], object] = lambda _: None
    say: Callable[[str], object] = lambda _: None

    @property
    def sources(self) -> list[int]:
        """For each shard the number of the source that its documents were read from."""
        return [int(path.name[1:].partition("-")[0]) for path in self.shards]

    def scan(self) -> pl.LazyFrame:
        """All notes with the number of their `shard` (UInt32) in front."""
        frames = [
            pl.scan_parquet(path, glob=False).select(pl.lit(number, pl.UInt32).alias("shard"), pl.all())
            for number, path in enumerate(self.surveys)
        ]
        return pl.concat(frames)

    def fetch(self, rows: pl.DataFrame, columns: Sequence[str] = ("id", "text")) -> pl.DataFrame:
        """The documents at these places (`shard`, `row`), each once, in the order of the corpus."""
        found = []
        wanted = rows.select(pl.col("shard", "row").cast(pl.UInt32)).unique().sort("shard", "row")
        for (number,), part in wanted.partition_by("shard", as_dict=True, maintain_order=True).items():
            frame = pl.read_parquet(self.shards[int(number)], columns=list(columns), glob=False)
            found.append(part.hstack(frame[part["row"]]))
        empty = pl.DataFrame(schema={"shard": pl.UInt32, "row": pl.UInt32})
        return pl.concat(found) if found else empty


def judge(step: Step | CorpusStep, documents: pl.DataFrame) -> pl.DataFrame:
    """A step's verdict on documents in memory, taken as a corpus of one shard."""
    if not isinstance(step, CorpusStep):
        return step.annotate(documents.lazy()).collect()
    with tempfile.TemporaryDirectory() as folder:
        names = ("p00-00000-000.parquet", "survey", "scratch")
        shard, survey, scratch = (Path(folder) / name for name in names)
        scratch.mkdir()
        documents.write_parquet(shard)
        step.survey(documents).write_parquet(survey)
        decisions = step.decide(Corpus([shard], [survey], scratch))
        return step.apply(documents, decisions.sort("row").drop("shard"))


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
