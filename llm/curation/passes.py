"""The work on one part or one shard, as a worker does it; every piece is on disk whole or not at all.

A pass reads each shard once and writes it once: what a corpus-wide step has decided is carried out, then come
steps that look at each document alone, then the notes for the next corpus-wide step. A folder a pass::

    02-quality/p00-00000-000.parquet           documents that are left
               p00-00000-000.ledger.parquet    what was removed and altered, by step
               p00-00000-000.survey.parquet    notes for the next corpus-wide step
               p00-00000-000.json              counts and sizes; written last: this shard is done

Waiting for the disk at every file would take longer than the work. So only the end of a pass waits, and a
shard counts as done when its files have the sizes that were written down: after a power cut it is done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from llm import files
from llm.curation.attributes import AttributeStore
from llm.curation.base import (
    DOCUMENT_COLUMNS,
    VERDICT_COLUMNS,
    CorpusStep,
    Reviewed,
    Source,
    Step,
    StreamedSource,
    Tagger,
)
from llm.curation.ledger import Counts, account
from llm.types import ConfigError

TEXT_COLUMNS = ("id", "text", "source", "domain")


class Part(NamedTuple):
    """One part of one source: its number among the sources, the source's name, the part's number and name."""

    source: int
    name: str
    number: int
    part: str

    @property
    def stem(self) -> str:
        """What its shards' names begin with; they sort like the documents."""
        return f"p{self.source:02}-{self.number:05}"


@dataclass(frozen=True)
class Reading:
    """Reads a part into shards.

    folder: where they go. sources: by name. survey: the first corpus-wide step. shard_bytes: text in a shard
    at most, unless one document has more. grouped: whether documents without a `group` are one of their own.
    """

    folder: Path
    sources: Mapping[str, Source | StreamedSource]
    survey: CorpusStep
    shard_bytes: int
    grouped: bool

    def __call__(self, part: Part) -> list[Counts]:
        """Counts of the step `read`; nothing is read when the part is done already."""
        done = self.folder / f"{part.stem}.json"
        if (counts := _done(done)) is not None:
            return counts
        total = Counts("read")
        names: list[str] = []
        sizes: dict[str, int] = {}
        frames = self._frames(part)
        while True:
            began = time.process_time()
            frame = next(frames, None)
            if frame is None:
                break
            kept, entries, counted = _received(frame, part.name, self.grouped)
            name = f"{part.stem}-{len(names):03}"
            sizes |= _write(self.folder / f"{name}.parquet", kept)
            sizes |= _write(self.folder / f"{name}.ledger.parquet", entries)
            sizes |= _write(self.folder / f"{name}.survey.parquet", self.survey.survey(kept))
            counted.seconds = time.process_time() - began
            total.add(counted)
            names.append(name)
        _mark(done, {"shards": names, "counts": [total.saved()], "sizes": sizes})
        return [total]

    def _frames(self, part: Part) -> Iterator[pl.DataFrame]:
        source = self.sources[part.name]
        frames = (
            source.read(part.part)
            if isinstance(source, StreamedSource)
            else iter([source.documents().collect()])
        )
        for frame in frames:
            yield from cut(frame, self.shard_bytes)


def cut(frame: pl.DataFrame, n_bytes: int) -> Iterator[pl.DataFrame]:
    """The rows in slices of at most so many bytes of text; a single longer text is a slice of its own."""
    sizes = frame["text"].str.len_bytes().fill_null(0).to_list()
    first = total = 0
    for row, size in enumerate(sizes):
        if total + size > n_bytes and row > first:
            yield frame[first:row]
            first, total = row, 0
        total += size
    if first < len(sizes):
        yield frame[first:]


def _received(frame: pl.DataFrame, name: str, grouped: bool) -> tuple[pl.DataFrame, pl.DataFrame, Counts]:
    """A reader's frame in the form every step relies on, judged by what the reader said of its rows."""
    lacking = set(TEXT_COLUMNS) - set(frame.columns)
    assert not lacking, f"source {name} lacks {', '.join(sorted(lacking))}"
    frame = frame.with_columns(
        *(pl.lit(None, pl.String).alias(c) for c in DOCUMENT_COLUMNS if c not in frame.columns)
    ).with_columns(pl.col(DOCUMENT_COLUMNS).cast(pl.String))
    if "group" not in frame.columns and grouped:
        # beside a grouped source, a document of its own is a group of its own
        frame = frame.with_columns(pl.col("id").alias("group"))
    others = [c for c in frame.columns if c not in (*DOCUMENT_COLUMNS, *VERDICT_COLUMNS)]
    frame = frame.with_columns(pl.col("text").fill_null(""))
    documents = frame.select(*DOCUMENT_COLUMNS, *others)
    said = {"keep": pl.lit(True), "reason": pl.lit(None, pl.String), "score": pl.lit(None, pl.Float64)}
    verdict = [
        pl.col(c) if c in frame.columns else said.get(c, pl.lit(None, pl.String)).alias(c)
        for c in VERDICT_COLUMNS
    ]
    return account("read", documents, frame.select(*documents.columns, *verdict))


@contextmanager
def blamed(step: str) -> Iterator[None]:
    """A step's mistakes under their place in the config."""
    place = {"ids": "curation", "split": "curation", "leaks": "curation.leaks", "mixture": "curation.mixture"}
    try:
        yield
    except ConfigError as error:
        path = place.get(step, f"curation.steps.{step}")
        if error.key.startswith("curation."):
            raise
        raise ConfigError(f"{path}.{error.key}", error.value, error.mend) from error


@dataclass(frozen=True)
class Pass:
    """One pass over the shards. apply: the corpus-wide step whose decisions are carried out first."""

    apply: tuple[str, CorpusStep] | None = None
    steps: list[tuple[str, Step]] = field(default_factory=list)
    survey: tuple[str, CorpusStep] | None = None

    @property
    def name(self) -> str:
        """For people and for the folder: its first step."""
        return self.judges[0][0] if self.judges else "keep"

    @property
    def judges(self) -> list[tuple[str, Step | CorpusStep]]:
        """The steps whose verdicts the pass carries out."""
        return [*([self.apply] if self.apply else []), *self.steps]


def passes(chain: list[tuple[str, Step | CorpusStep]]) -> list[Pass]:
    """The chain of steps cut where a corpus-wide step needs the notes of all shards."""
    found = [Pass()]
    for name, step in chain:
        if isinstance(step, CorpusStep):
            found[-1] = Pass(found[-1].apply, found[-1].steps, (name, step))
            found.append(Pass(apply=(name, step)))
        else:
            found[-1].steps.append((name, step))
    return found


@dataclass(frozen=True)
class Surveying:
    """Takes the notes on a shard that the next corpus-wide step asks for.

    folder: of the pass whose documents they are on. survey: that step. attributes: as in `Passing`.
    """

    folder: Path
    survey: tuple[str, CorpusStep]
    attributes: Path | None

    def __call__(self, shard: str) -> None:
        """Notes on a shard that is done, in place of those of other settings."""
        documents = pl.read_parquet(self.folder / f"{shard}.parquet", glob=False)
        self.note(documents, shard)

    def note(self, documents: pl.DataFrame, shard: str) -> tuple[dict[str, int], Counts]:
        """Writes the notes; the file's name and size, and the time it took."""
        name, step = self.survey
        began = time.process_time()
        with blamed(name):
            if isinstance(step, Tagger):
                documents, _ = AttributeStore(self.attributes).tagged(step, documents, shard)
            notes = step.survey(documents)
        written = _write(self.folder / f"{shard}.survey.parquet", notes)
        return written, Counts(name, seconds=time.process_time() - began)


@dataclass(frozen=True)
class Passing:
    """Takes a shard through a pass.

    before: the folder of the pass before. folder: this one's. decisions: the folder of those that are carried
    out. attributes: where taggers keep what they measure.
    """

    todo: Pass
    before: Path
    folder: Path
    decisions: Path | None
    attributes: Path | None

    def __call__(self, shard: str) -> list[Counts]:
        """Counts of each step; a shard that is done already is not worked on again."""
        done = self.folder / f"{shard}.json"
        if (known := _done(done)) is not None:
            return known
        sizes: dict[str, int] = {}
        documents = pl.read_parquet(self.before / f"{shard}.parquet", glob=False)
        entries: list[pl.DataFrame] = []
        counts: list[Counts] = []
        store = AttributeStore(self.attributes)
        for name, judge in self._judges(shard, store):
            began = time.process_time()
            with blamed(name):
                judged = judge(documents)
            documents, removed, counted = account(name, documents, judged)
            counted.seconds = time.process_time() - began
            entries.append(removed)
            counts.append(counted)
        if self.todo.survey is not None:
            surveying = Surveying(self.folder, self.todo.survey, self.attributes)
            written, counted = surveying.note(documents, shard)
            sizes |= written
            counts.append(counted)
        sizes |= _write(self.folder / f"{shard}.parquet", documents)
        if entries:
            sizes |= _write(self.folder / f"{shard}.ledger.parquet", pl.concat(entries))
        _mark(done, {"counts": [one.saved() for one in counts], "sizes": sizes})
        return counts

    def _judges(self, shard: str, store: AttributeStore) -> Iterator[tuple[str, Any]]:
        if self.todo.apply is not None:
            name, step = self.todo.apply
            yield name, lambda documents: _tidy(step.apply(documents, self._decisions(shard)))
        for name, one in self.todo.steps:
            path = self.folder / f"{shard}.review-{name}.parquet"
            yield name, lambda documents, one=one, path=path: _annotated(one, documents, store, shard, path)

    def _decisions(self, shard: str) -> pl.DataFrame:
        assert self.decisions is not None
        path = self.decisions / f"{shard}.parquet"
        return pl.read_parquet(path if path.is_file() else path.with_name("none.parquet"), glob=False)


def _annotated(
    step: Step, documents: pl.DataFrame, store: AttributeStore, shard: str, review: Path
) -> pl.DataFrame:
    if isinstance(step, Tagger):
        documents, _ = store.tagged(step, documents, shard)
    if isinstance(step, Reviewed):
        _write(review, step.review(documents))
    return _tidy(step.annotate(documents.lazy()).collect())


def _tidy(judged: pl.DataFrame) -> pl.DataFrame:
    """Without the columns that were a step's own."""
    return judged.drop([c for c in judged.columns if c.startswith("_")])


def write_decisions(folder: Path, decisions: pl.DataFrame, shards: list[str]) -> list[str]:
    """Writes what `CorpusStep.decide` found, a file for each shard that it concerns; their names."""
    decisions = decisions.sort("shard", "row")
    rest = decisions.drop("shard")
    written = _write(folder / "none.parquet", rest.clear())
    for (number,), part in decisions.partition_by("shard", as_dict=True, maintain_order=True).items():
        written |= _write(folder / f"{shards[int(number)]}.parquet", part.drop("shard"))
    return list(written)


def _write(path: Path, frame: pl.DataFrame) -> dict[str, int]:
    """Writes a file of work in progress; its name and size."""
    with files.replacing(path, durable=False) as temporary:
        frame.write_parquet(temporary, compression="lz4", statistics=False)
    return {path.name: path.stat().st_size}


def _mark(path: Path, content: dict[str, Any]) -> None:
    with files.replacing(path, durable=False) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _done(path: Path) -> list[Counts] | None:
    """What was counted when this part or shard was done, None when it is not, or its files are torn."""
    try:
        saved = files.read_json(path)
        whole = all((path.parent / name).stat().st_size == size for name, size in saved["sizes"].items())
    except (OSError, ValueError, KeyError):
        return None
    return [Counts.of(one) for one in saved["counts"]] if whole else None
