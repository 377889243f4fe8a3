"""Every step of curation alone on the same documents: how many a second one core takes through it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.benchmarks.base import alternate
from llm.benchmarks.made_documents import blocks, documents, sentences
from llm.curation.base import CorpusStep, Step, judge
from llm.curation.passes import cut
from llm.runs.run import Run
from llm.types import ConfigError

SHARD_BYTES = 16_000_000


class CurationSteps:
    """Each step judges all documents, whatever the other steps would have left of them.

    The reference is the least that anyone does with a corpus, ``json.loads`` of its lines. Seconds are those
    of the processor, summed over the threads of this process; models are loaded before. Compiled code, caches
    and attributes of an earlier round help nobody: nothing is kept, and a round is run before the first.

    Args:
        path: Folder of texts (.txt, .txt.gz) to make the documents from; see `made_documents`.
        steps: What is measured, by name.
        n_megabytes: Of text; more shows what steps that compare documents cost.
        n_rounds: How often each is timed.
    """

    def __init__(
        self,
        path: str,
        steps: Mapping[str, Step | CorpusStep],
        n_megabytes: Annotated[int, Field(gt=0)] = 32,
        n_rounds: Annotated[int, Field(gt=0)] = 3,
        name: str = "steps",
    ) -> None:
        if not steps:
            raise ConfigError("steps", dict(steps), "name one, e.g. +curation/step@benchmark.steps.c4=c4")
        self.path, self.steps, self.n_megabytes, self.n_rounds = path, dict(steps), n_megabytes, n_rounds
        self.name = name

    def measure(self, run: Run) -> dict[str, float]:
        """For each step ``ratio_NAME`` (its seconds over the reference's), ``docs_NAME`` and ``mb_NAME``
        (documents and megabytes of text a second of one core), ``kept_NAME`` (share of the documents).
        """  # fmt: skip
        made = self._documents(run.seed)
        n_bytes = int(made["text"].str.len_bytes().sum())
        lines = [json.dumps(row) for row in made.select("id", "text").iter_rows(named=True)]
        kept: dict[str, float] = {}
        sides: dict[str, Callable[[], object]] = {"json": partial(_parse, lines)}
        for name, step in self.steps.items():
            if prepare := getattr(step, "prepare", None):
                prepare(run.say)
            sides[name] = partial(_judge, name, step, made, kept)
        with run.progress("steps", (self.n_rounds + 1) * len(sides), unit="steps") as progress:
            timings = alternate(
                sides, n_rounds=self.n_rounds, advance=progress.advance, clock=time.process_time
            )
        metrics, rows = dict[str, float](), []
        for name in self.steps:
            ratio, low, high = timings.ratio(name, "json")
            seconds = timings.median(name)
            row = {
                f"ratio_{name}": ratio,
                f"docs_{name}": made.height / seconds,
                f"mb_{name}": n_bytes / 1e6 / seconds,
                f"kept_{name}": kept[name],
            }
            metrics |= row
            rows.append([name, *row.values(), low, high])
        columns = [
            "step",
            "ratio",
            "documents_per_second",
            "mb_per_second",
            "kept",
            "ratio_low",
            "ratio_high",
        ]
        run.log_table("steps", columns, rows)
        return metrics | {"documents": float(made.height), "bytes": float(n_bytes)}

    def _documents(self, seed: int) -> pl.DataFrame:
        drawn = documents({"prose": sentences(self.path), "code": blocks()}, random.Random(f"{seed} steps"))
        rows, left = [], self.n_megabytes * 1_000_000
        for domain, text in drawn:
            left -= len(text.encode())
            if left < 0:
                break
            rows.append((domain, text))
        made = pl.DataFrame(rows, schema=["domain", "text"], orient="row")
        number = pl.int_range(pl.len()).cast(pl.String)
        return made.select(
            pl.concat_str(pl.lit("made/"), number).alias("id"),
            "text",
            pl.lit("made").alias("source"),
            "domain",
            pl.lit("CC-BY-4.0").alias("licence"),
            pl.concat_str(pl.lit("https://example.org/"), number).alias("provenance"),
        )


def _judge(name: str, step: Step | CorpusStep, made: pl.DataFrame, kept: dict[str, float]) -> None:
    parts = [made] if isinstance(step, CorpusStep) else cut(made, SHARD_BYTES)
    kept[name] = sum(int(judge(step, part)["keep"].sum()) for part in parts) / made.height


def _parse(lines: list[str]) -> None:
    assert all(json.loads(line)["text"] for line in lines)
