"""The way of a corpus through its steps, on disk between any two of them, so that it goes on after a kill."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

import polars as pl

from llm import files
from llm.curation.base import Corpus, CorpusStep, Source, Step, StreamedSource
from llm.curation.engines import Engine
from llm.curation.ledger import LEDGER_SCHEMA, Counts, summed
from llm.curation.passes import (
    Part,
    Pass,
    Passing,
    Reading,
    Surveying,
    blamed,
    passes,
    write_decisions,
)

T = TypeVar("T")


class Advance(Protocol):
    """Progress under way; see `llm.runs.progress.Progress`."""

    def advance(self, n: int = 1, **shown: object) -> object:
        """`n` more are done."""
        ...


Progress = Callable[[str, int | None, str], AbstractContextManager[Advance]]
"""(what is done, how many of them, their unit) -> a progress display."""


class StaleWorkError(Exception):
    """What lies in the folder was made with other settings, and what it was made from is no longer there."""


class Runner:
    """Carries steps out over a corpus in shards.

    The folder holds a sub-folder for each pass; a pass that is whole is not worked on again, one that was cut
    off goes on with the shards that are missing. Documents of a pass are deleted when the next one is whole,
    its ledger stays. So when the settings of a step have changed, the passes before it stand as long as the
    pass behind is not whole; from there on work is done anew.

    Args:
        folder: Where all of that lies.
        marks: By the name of a step, a digest of all that decides what it does, and `read` for the sources.
        engine: What works on the shards.
        progress: Shows people how it goes.
        attributes: Where taggers keep what they measure; nowhere when None.
        say: Takes a line for people.
    """

    def __init__(
        self,
        folder: Path,
        marks: Mapping[str, str],
        engine: Engine,
        progress: Progress,
        attributes: Path | None = None,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.folder, self.engine, self.attributes = folder, engine, attributes
        self._marks, self._progress, self._say = marks, progress, say
        self.resumed = (folder / "00-read").exists()
        self.shards: list[str] = []
        self.n_documents = 0
        self._done: list[Path] = []
        self._current = folder
        self.plan: list[str] = []

    def read(
        self,
        sources: dict[str, Source | StreamedSource],
        survey: CorpusStep,
        *,
        shard_bytes: int,
        grouped: bool,
    ) -> Counts:
        """Reads every part of every source into shards; the first pass.

        Args:
            sources: By name, in the order of the corpus.
            survey: The corpus-wide step that comes first.
            shard_bytes: Text in a shard at most.
            grouped: See `Reading`.

        Raises:
            StaleWorkError: as `carry_out`.
        """
        folder = self.folder / "00-read"
        parts = [
            Part(number, name, index, part)
            for number, (name, source) in enumerate(sources.items())
            for index, part in enumerate(source.parts() if isinstance(source, StreamedSource) else [""])
        ]

        def read() -> list[Counts]:
            streamed = {name: one for name, one in sources.items() if isinstance(one, StreamedSource)}
            here, there = (
                Reading(folder, some, survey, shard_bytes, grouped) for some in (sources, streamed)
            )
            counts: list[Counts] = []
            with self._progress("read", len(parts), "parts") as progress:
                # what a source that is read whole keeps in memory is not sent to other processes
                whole = map(here, [part for part in parts if part.name not in streamed])
                rest = self.engine.map(there, [part for part in parts if part.name in streamed])
                for found in chain(whole, rest):
                    counts += found
                    progress.advance(1, documents=sum(one.documents_in for one in counts))
            self.shards = [
                shard for p in parts for shard in files.read_json(folder / f"{p.stem}.json")["shards"]
            ]
            return counts

        self.plan = [self._marks["read"]]
        self._check(folder, None)
        return self._whole(folder, read)[0]

    def carry_out(
        self, steps: Sequence[tuple[str, Step | CorpusStep]], *, surveyed: bool
    ) -> Iterator[Counts]:
        """Takes every shard through the steps.

        Args:
            steps: With their names, in order.
            surveyed: Whether the notes for the first one, a corpus-wide step, are there already.

        Yields:
            What each step did, when its pass is over.

        Raises:
            StaleWorkError: a pass is whole, but was made by other settings; the folder is of no use.
        """
        todo = passes(list(steps))
        counts: dict[str, Counts] = {name: Counts(name) for name, _ in steps}
        for one in todo[1:] if surveyed else todo:
            if one == Pass():
                continue
            for found in self._carry_out(one):
                if found.step in counts:  # or notes were taken for a step that has been left out since
                    counts[found.step].add(found)
            yield from (counts[name] for name, _ in one.judges)

    def _carry_out(self, todo: Pass) -> list[Counts]:
        before = self._current
        folder = self.folder / f"{len(self._done):02}-{todo.name}"

        def work() -> list[Counts]:
            counts: list[Counts] = []
            decisions = None
            if todo.apply is not None:
                began = time.process_time()
                decisions = self._decide(*todo.apply, before, folder)
                counts.append(Counts(todo.apply[0], seconds=time.process_time() - began))
            label = ", ".join(name for name, _ in todo.judges)
            with self._progress(f"step {label or todo.name}", self.n_documents, "documents") as progress:
                passing = Passing(todo, before, folder, decisions, self.attributes)
                for found in self.engine.map(passing, self.shards):
                    counts += found
                    progress.advance(max((one.documents_in for one in found), default=0))
            return counts

        self.plan = [*self.plan, *(self._mark(name) for name, _ in todo.judges)]
        self._check(folder, todo.survey)
        counts = self._whole(folder, work)
        for shard in self.shards:  # of the pass before, the ledger stays
            for kind in ("parquet", "survey.parquet"):
                (before / f"{shard}.{kind}").unlink(missing_ok=True)
        return counts

    def _decide(self, name: str, step: CorpusStep, before: Path, folder: Path) -> Path:
        """Where the decisions are, apart from what the pass does with them: these stand when that changes."""
        decided = folder.with_name(f"{folder.name}.decisions")
        marker, plan = decided / "whole.json", self.plan[: self.plan.index(self._mark(name)) + 1]
        saved = _saved(marker)
        if saved.get("plan") == plan and all((decided / one).is_file() for one in saved["files"]):
            return decided
        discard(decided)
        scratch = folder.with_name("scratch")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        with self._progress(f"decide {name}", None, "shards") as progress:
            corpus = Corpus(
                [before / f"{shard}.parquet" for shard in self.shards],
                [before / f"{shard}.survey.parquet" for shard in self.shards],
                scratch,
                progress.advance,
                self._say,
            )
            with blamed(name):
                decisions = step.decide(corpus)
            written = write_decisions(decided, decisions, self.shards)
        shutil.rmtree(scratch)
        os.sync()
        files.write_json(marker, {"plan": plan, "files": written})
        return decided

    def _mark(self, name: str) -> str:
        return f"{name} {self._marks.get(name, '')}"

    def _check(self, folder: Path, survey: tuple[str, CorpusStep] | None) -> None:
        """Clears away what other settings have left of a pass; takes its notes anew if no more is theirs."""
        path, whole = folder / "plan.json", (folder / "whole.json").is_file()
        plan = {"done": self.plan, "survey": survey and self._mark(survey[0])}
        known = _saved(path)
        if known == plan:
            return
        if not whole:
            discard(folder)
        elif known.get("done") != self.plan:
            raise StaleWorkError
        elif survey is not None:
            self._require(folder)
            files.write_json(path, {**plan, "survey": None})  # the notes are of two kinds until all are new
            with self._progress(f"survey for {survey[0]}", len(self.shards), "shards") as progress:
                for _ in self.engine.map(Surveying(folder, survey, self.attributes), self.shards):
                    progress.advance()
            os.sync()
        files.write_json(path, plan)

    def _require(self, folder: Path) -> None:
        if not all((folder / f"{shard}.parquet").is_file() for shard in self.shards):
            raise StaleWorkError

    def _whole(self, folder: Path, work: Callable[[], list[Counts]]) -> list[Counts]:
        """Does the work of a pass unless its folder is whole; the pass is the current one afterwards."""
        marker = folder / "whole.json"
        if marker.is_file():
            saved = files.read_json(marker)
            self.shards = saved["shards"]
            counts = [Counts.of(one) for one in saved["counts"]]
        else:
            folder.mkdir(parents=True, exist_ok=True)
            counts = summed(work())
            os.sync()  # the shards were not waited for one by one
            files.write_json(marker, {"shards": self.shards, "counts": [one.saved() for one in counts]})
        judged = [one for one in counts if one.documents_in]
        self.n_documents = judged[-1].documents_out if judged else self.n_documents
        self._done.append(folder)
        self._current = folder
        return counts

    def scan(self) -> pl.LazyFrame:
        """The documents that are left, in their order.

        Raises:
            StaleWorkError: a later pass, under other settings, has used them up.
        """
        self._require(self._current)
        found = [pl.scan_parquet(self._current / f"{shard}.parquet", glob=False) for shard in self.shards]
        return pl.concat(found, how="diagonal")

    def frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The documents that are left, a shard at a time.

        Raises:
            StaleWorkError: as `scan`.
        """
        self._require(self._current)
        for shard in self.shards:
            yield pl.read_parquet(self._current / f"{shard}.parquet", columns=list(columns), glob=False)

    def ledgers(self) -> Iterator[pl.LazyFrame]:
        """Everything removed or altered: pass by pass, shard by shard, step by step."""
        yield pl.LazyFrame(schema=LEDGER_SCHEMA)
        for folder in self._done:
            for shard in self.shards:
                path = folder / f"{shard}.ledger.parquet"
                if path.is_file():
                    yield pl.scan_parquet(path, glob=False)

    def reviews(self, name: str) -> Iterator[pl.LazyFrame]:
        """What the step of this name found, shard by shard."""
        for folder in self._done:
            for path in sorted(folder.glob(f"*.review-{name}.parquet")):
                yield pl.scan_parquet(path, glob=False)

    def clear(self) -> None:
        """Deletes the folder: what was wanted of it is written elsewhere."""
        discard(self.folder)


def discard(folder: Path) -> None:
    """Deletes a folder; a kill on the way leaves nothing of it under its name."""
    gone = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        folder.rename(gone)
        shutil.rmtree(gone)


def _saved(path: Path) -> dict[str, Any]:
    """What a marker says; nothing when it is not there."""
    try:
        return dict(files.read_json(path))
    except (OSError, ValueError):
        return {}
