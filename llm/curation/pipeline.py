"""Curation as one component: sources, steps, split, mixture, and what is derived from documented objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import polars as pl

from llm.curation.base import DOCUMENT_COLUMNS, DocumentedObject, ObjectSource, Source, Step
from llm.curation.derive import DeriveQuestions
from llm.curation.leaks import LeakRemoval
from llm.curation.mixture import DomainMixture
from llm.curation.split import HashSplit
from llm.files import digest
from llm.types import ConfigError


class Split(Protocol):
    """Chooses what is held out."""

    def held_out(self, documents: pl.DataFrame) -> pl.Series:
        """True for each row that belongs to validation."""
        ...


class Curation:
    """What `task=curate` does, declared; the task carries it out.

    Args:
        sources: Readers by name; their documents are joined in the order of the names here.
        steps: Judgements by name, applied in the order given.
        split: Chooses the validation documents.
        mixture: Weights over domains, for the training side; none keeps everything.
        leaks: Removes from validation what training repeats; none removes nothing.
        derive: Makes conversations, preferences and an exam from documented objects; needs a source that has
            them (the embedded corpus).

    Raises:
        ConfigError: no source, or `derive` without a source of documented objects.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        steps: Mapping[str, Step] | None = None,
        split: Split | None = None,
        mixture: DomainMixture | None = None,
        leaks: LeakRemoval | None = None,
        derive: DeriveQuestions | None = None,
    ) -> None:
        self.sources = {name: source for name, source in sources.items() if source is not None}
        self.steps = {name: step for name, step in (steps or {}).items() if step is not None}
        self.split: Split = split or HashSplit()
        self.mixture, self.leaks, self.derive = mixture, leaks, derive
        if not self.sources:
            raise ConfigError("sources", "{}", "needs at least one, e.g. curation=embedded")
        if derive is not None and not self.object_sources:
            mend = "needs a source of documented objects; add the embedded corpus or set derive to null"
            raise ConfigError("derive", type(derive).__name__, mend)

    @property
    def object_sources(self) -> dict[str, ObjectSource]:
        """The sources that know documented objects."""
        return {name: source for name, source in self.sources.items() if isinstance(source, ObjectSource)}

    def objects(self) -> list[DocumentedObject]:
        """Documented objects of all sources."""
        return [one for source in self.object_sources.values() for one in source.objects()]

    def fingerprint(self) -> str:
        """A digest of what all sources would read."""
        return digest([(name, source.fingerprint()) for name, source in self.sources.items()])

    def read(self, name: str) -> pl.DataFrame:
        """The documents of one source.

        Raises:
            ConfigError: bad input; no document in it.
        """
        frame = self.sources[name].documents().collect()
        if not frame.height:
            raise ConfigError(f"sources.{name}", "0 documents", "the source holds no document")
        assert set(DOCUMENT_COLUMNS) <= set(frame.columns), f"source {name} lacks {DOCUMENT_COLUMNS}"
        if "group" not in frame.columns and self.object_sources:
            # beside a grouped source, a document of its own is a group of its own
            frame = frame.with_columns(pl.col("id").alias("group"))
        return frame

    @staticmethod
    def join(frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
        """All documents; ids stay unique by taking the source's name in front where two sources share one.

        Raises:
            ConfigError: one source has two documents of one id. Key `sources.NAME`.
        """
        for name, frame in frames.items():
            twice = frame.filter(pl.col("id").is_duplicated())
            if twice.height:
                mend = "two documents have this id; choose another column for `id`, or none for line numbers"
                raise ConfigError(f"sources.{name}.id", twice["id"][0], mend)
        joined = pl.concat(frames.values(), how="diagonal")
        if joined["id"].is_duplicated().any():
            named = [
                frame.with_columns(pl.concat_str(pl.lit(f"{name}/"), "id").alias("id"))
                for name, frame in frames.items()
            ]
            joined = pl.concat(named, how="diagonal")
        return joined
