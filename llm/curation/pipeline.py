"""Curation as one component: sources, steps, split, mixture, and what is derived from documented objects."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from llm.curation.base import CorpusStep, DocumentedObject, ObjectSource, Source, Step, StreamedSource
from llm.curation.bookkeeping import Split
from llm.curation.derive import DeriveQuestions
from llm.curation.engines import Engine, Polars
from llm.curation.leaks import LeakRemoval
from llm.curation.passes import blamed
from llm.curation.split import HashSplit
from llm.files import digest
from llm.types import ConfigError, inside

AnyStep = Step | CorpusStep

OWN_STEPS = {"read", "ids", "split", "leaks", "leaked_objects", "mixture"}
"""Names of what the task does besides the steps it is given."""


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
        engine: What works on the shards; this process when none is given.
        shard_bytes: Bytes of text in a shard, the piece of the corpus that a worker holds in memory.
        attributes: Folder where taggers keep what they have measured, for runs to come; none keeps nothing.

    Raises:
        ConfigError: no source, `derive` without a source of documented objects, or a step with a taken name.
    """

    def __init__(
        self,
        sources: Mapping[str, Source | StreamedSource],
        steps: Mapping[str, AnyStep] | None = None,
        split: Split | None = None,
        mixture: CorpusStep | None = None,
        leaks: LeakRemoval | None = None,
        derive: DeriveQuestions | None = None,
        engine: Engine | None = None,
        shard_bytes: Annotated[int, Field(ge=1000)] = 16_000_000,
        attributes: str | None = None,
    ) -> None:
        self.sources = {name: source for name, source in sources.items() if source is not None}
        self.steps = {name: step for name, step in (steps or {}).items() if step is not None}
        self.split: Split = split or HashSplit()
        self.mixture, self.leaks, self.derive = mixture, leaks, derive
        self.engine: Engine = engine or Polars()
        self.shard_bytes, self.attributes = shard_bytes, attributes
        if not self.sources:
            raise ConfigError("sources", "{}", "needs at least one, e.g. curation=embedded")
        for name in OWN_STEPS & self.steps.keys():
            mend = f"every curation has a step of this name; taken are {', '.join(sorted(OWN_STEPS))}"
            raise ConfigError(f"steps.{name}", type(self.steps[name]).__name__, mend)
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
        """A digest of what all sources would read, and of the files that steps and the mixture read.

        Raises:
            ConfigError: one of those files is not there. Key: its place in this config.
        """
        parts: dict[str, Any] = {f"sources.{name}": one for name, one in self.sources.items()}
        parts |= {f"steps.{name}": one for name, one in self.steps.items()} | {"mixture": self.mixture}
        marks = []
        for key, part in parts.items():
            if hasattr(part, "fingerprint"):
                with inside(key):
                    marks.append((key.rpartition(".")[2], part.fingerprint()))
        return digest(marks)

    def marks(self) -> dict[str, str]:
        """What decides the outcome of each step, its settings and the files it reads, as digests by name.

        `read` has that of the sources. All are taken before work begins, for steps keep what they load.
        """
        # what lies between passes holds hashes of polars', which another version computes otherwise
        sources = [(name, source.fingerprint()) for name, source in self.sources.items()]
        own = {"split": self.split, "leaks": self.leaks, "mixture": self.mixture}
        parts = {**self.steps, **own, "leaked_objects": [self.derive, self.leaks]}
        marks = {"read": digest([pl.__version__, sources, self.shard_bytes])}
        for name, part in parts.items():
            with blamed(name):
                marks[name] = digest(described(part))
        return marks


def described(value: object) -> Any:
    """A component as plain values: its class, its state and the files it reads.

    It goes as far down as things are made of python objects.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path | bytes | re.Pattern | pl.Expr):
        return str(value)
    if isinstance(value, Mapping):
        return [[str(key), described(one)] for key, one in value.items()]
    if isinstance(value, Set):
        return sorted(map(str, value))
    if isinstance(value, Sequence):
        return [described(one) for one in value]
    if isinstance(value, functools.partial):
        return [described(value.func), described(value.args), described(value.keywords)]
    kind = value if isinstance(value, type) or inspect.isroutine(value) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind is value or not hasattr(value, "__dict__"):
        return name
    # what is not made of python objects (an array, a loaded model) follows from what is
    fingerprint = getattr(value, "fingerprint", None)
    return [name, described(vars(value)), fingerprint() if callable(fingerprint) else None]
