"""Removes documents that hold items of the benchmarks a model will be measured with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, NamedTuple

import polars as pl
from pydantic import Field

from llm import files, inputs
from llm.curation.base import with_attributes
from llm.curation.benchmark_items import Item, benchmark_files, check_settings, read_items
from llm.curation.numbered_words import words
from llm.curation.overlap import LEAST_SCORE, OverlapIndex
from llm.types import ConfigError

REVIEW_SCHEMA = {
    "document": pl.String,
    "benchmark": pl.String,
    "item": pl.String,
    "detector": pl.String,
    "score": pl.Float64,
    "excerpt": pl.String,
    "text": pl.String,
}
"""Columns of the review tables: the document, what it holds, how that was found, the words of both."""

_VERSION = 2  # of what `tag` measures


class Decontamination:
    """Removes, or marks, documents in which a benchmark's item stands, word for word or slightly edited.

    Case, punctuation, accents and line breaks do not count. An item is looked for as a whole, with each of
    its choices alone, and, where its first field has `ngram` words, by that field alone. Two detectors:

    - *ngram*: `ngram` words in a row. Brown et al. 2020 (GPT-3), appendix C, take 13. Runs that more than 1 %
      of all items share are a template and no evidence.
    - *overlap*: the best alignment of the item with a part of the document. Its score is the share of the
      item's words that stand there in order, less a little for words between them; half of a word's weight
      is even, half its rarity among the items (inverse document frequency, as in OLMo's decon). This one
      finds edited items, and those shorter than `ngram` words.

    `match` is ``<benchmark>:<id>``, `score` that of the alignment, `reason` ``contaminated_<benchmark>``.

    Args:
        benchmarks: By name, `path`, `text` (fields of an item's text, as a user sees them) and perhaps `id`:
            see `llm.curation.benchmark_items.read_items`. None: nothing is looked for.
        threshold: Least score of the overlap; 1 finds only what has every word.
        ngram: Words in a row that convict.
        min_words: An item of which no form has as many words is too common to be looked for; `unchecked`
            lists them.
        mode: `remove`, or `tag`: keep, with the column `contamination` (JSON of the evidence).
    """

    def __init__(
        self,
        benchmarks: Mapping[str, Mapping[str, Any]] | None = None,
        threshold: Annotated[float, Field(ge=LEAST_SCORE, le=1)] = 0.6,
        ngram: Annotated[int, Field(ge=5, le=100)] = 13,
        min_words: Annotated[int, Field(ge=3)] = 5,
        mode: Literal["remove", "tag"] = "remove",
    ) -> None:
        self.check_arguments(benchmarks, ngram, min_words)
        self.benchmarks = {name: _plain(settings) for name, settings in (benchmarks or {}).items()}
        self.threshold, self.ngram, self.min_words, self.mode = threshold, ngram, min_words, mode

    @staticmethod
    def check_arguments(
        benchmarks: Mapping[str, Mapping[str, Any]] | None, ngram: int, min_words: int
    ) -> None:
        """Every benchmark says where it is and what its text is.

        Raises:
            ConfigError: one does not; or `min_words` is above `ngram`.
        """
        for name, settings in (benchmarks or {}).items():
            if ":" in str(name):
                raise ConfigError("benchmarks", name, "a benchmark's name holds no colon")
            check_settings(str(name), settings)
        if min_words > ngram:
            raise ConfigError("min_words", min_words, f"is above ngram={ngram}")

    def prepare(self, say: Callable[[str], object]) -> None:
        """Reads the benchmarks once, so that a wrong path shows before the corpus is read."""
        if not self.benchmarks:
            say("decontamination: no benchmark named, nothing is looked for")
            return
        known, n_missed = self._known, self.unchecked().filter(pl.col("detector") == "not_checkable").height
        line = f"decontamination: {len(known.items):,} items of {', '.join(self.benchmarks)}"
        say(line + (f"; {n_missed:,} are too short to be looked for" if n_missed else ""))

    @property
    def attributes(self) -> Mapping[str, Any]:
        """`_contamination`: JSON of all evidence, whatever the threshold."""
        return {"_contamination": pl.String()}

    def tag(self, texts: pl.Series) -> pl.DataFrame:
        """The evidence in each text, null where there is none."""
        evidence: list[str | None] = [None] * len(texts)
        if self.benchmarks:
            known = self._known
            for row, matches in enumerate(known.overlaps.search(texts)):
                found = [
                    {
                        "item": known.items[known.overlaps.owner[match.form]].name,
                        "detector": "ngram" if match.verbatim else "overlap",
                        "score": round(match.score, 6),
                        "document": document,
                        "text": form,
                    }
                    for match, document, form in matches
                ]
                evidence[row] = json.dumps(found, ensure_ascii=False) if found else None
        return pl.DataFrame({"_contamination": pl.Series(evidence, dtype=pl.String)})

    def tag_key(self) -> object:
        """Digests of the benchmarks' files, and what is counted in them."""
        return [_VERSION, self.ngram, self.min_words, self._digests]

    def fingerprint(self) -> str:
        """A digest of the benchmarks' files, part of a stage's key."""
        return files.digest(self._read_digests())

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """In mode `tag` every document stays, those with evidence get the column `contamination`."""
        frame = with_attributes(self, documents).collect()
        convicted = [self._convicting(evidence) for evidence in frame["_contamination"]]
        first = [found[0] if found else None for found in convicted]
        reasons = [one and f"contaminated_{one['item'].partition(':')[0]}" for one in first]
        removing = self.mode == "remove"
        judged = frame.drop("_contamination").with_columns(
            pl.Series("keep", [not (removing and one) for one in first], pl.Boolean),
            pl.Series("reason", reasons if removing else [None] * len(first), pl.String),
            pl.Series("score", [one and one["score"] for one in first], pl.Float64),
            pl.Series("match", [one and one["item"] for one in first], pl.String),
        )
        if not removing:
            told = [json.dumps(found, ensure_ascii=False) if found else None for found in convicted]
            judged = judged.with_columns(pl.Series("contamination", told, pl.String))
        return judged.lazy()

    def review(self, documents: pl.DataFrame) -> pl.DataFrame:
        """All that convicts these documents, with the words on both sides, a row a finding."""
        tagged = with_attributes(self, documents.lazy()).collect()
        rows = [
            (
                name,
                one["item"].partition(":")[0],
                *(one[key] for key in ("item", "detector", "score")),
                *texts,
            )
            for name, evidence in tagged.select("id", "_contamination").iter_rows()
            for one in self._convicting(evidence)
            for texts in [(one["document"], one["text"])]
        ]
        return pl.DataFrame(rows, schema=REVIEW_SCHEMA, orient="row")

    def unchecked(self) -> pl.DataFrame:
        """Items too short to be looked for (`not_checkable`), or unless all their choices stand there too."""
        known = self._known
        rows = [
            (None, item.benchmark, item.name, detector, None, None, item.forms()[0])
            for item, detector in zip(known.items, known.coverage, strict=True)
            if detector is not None
        ]
        return pl.DataFrame(rows, schema=REVIEW_SCHEMA, orient="row")

    def _convicting(self, evidence: str | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(evidence) if evidence else []
        return [one for one in found if one["detector"] == "ngram" or one["score"] >= self.threshold]

    @cached_property
    def _digests(self) -> dict[str, Any]:
        """Taken once, and the workers get it."""
        return self._read_digests()

    def _read_digests(self) -> dict[str, Any]:
        found = {}
        for name, settings in self.benchmarks.items():
            paths = benchmark_files(name, settings)
            found[name] = [
                settings["text"],
                settings.get("id"),
                inputs.digest(paths, key=f"benchmarks.{name}.path"),
            ]
        return found

    @property
    def _known(self) -> _Known:
        return _read(
            files.canonical(self.benchmarks), files.canonical(self.tag_key()), self.ngram, self.min_words
        )


class _Known(NamedTuple):
    items: Sequence[Item]
    coverage: Sequence[str | None]
    overlaps: OverlapIndex


@lru_cache(maxsize=2)
def _read(benchmarks: str, key: str, ngram: int, min_words: int) -> _Known:  # noqa: ARG001  (contents, for the cache)
    """Items and index: kept here and not in the step, which travels to other processes."""
    named = json.loads(benchmarks)
    items = [item for name, settings in named.items() for item in read_items(name, settings)]
    forms = pl.DataFrame(
        {"item": range(len(items)), "text": [[*item.forms(), item.question] for item in items]},
        schema={"item": pl.Int64, "text": pl.List(pl.String)},
    )
    flat = forms.explode("text").with_columns(pl.int_range(pl.len()).over("item").alias("form"))
    counted = flat.with_columns(words(flat["text"]).list.len().alias("n"))
    alone = (pl.col("form") == pl.col("form").max().over("item")) & (pl.col("form") > 0)
    long_enough = pl.col("n") >= pl.when(alone).then(max(ngram, min_words)).otherwise(min_words)
    kept = counted.with_columns(long_enough.alias("kept"))
    grouped = kept.group_by("item", maintain_order=True).agg(
        pl.col("text").filter(pl.col("kept")).unique(maintain_order=True).alias("forms"),
        pl.col("kept").filter(~alone).any().alias("any"),
        pl.col("kept").filter(~alone).all().alias("all"),
    )
    coverage = [
        None if every else "only_with_all_choices" if some else "not_checkable"
        for some, every in grouped.select("any", "all").iter_rows()
    ]
    return _Known(items, coverage, OverlapIndex(grouped["forms"].to_list(), ngram))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lists and texts in place of a config's own kinds, so that it can be pickled and hashed."""
    texts = settings["text"]
    plain = {"path": str(settings["path"]), "text": [texts] if isinstance(texts, str) else list(texts)}
    return plain | ({} if settings.get("id") is None else {"id": str(settings["id"])})
