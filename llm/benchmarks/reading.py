"""Readers of JSON lines and parquet, with all they check, against a plain loop and a plain polars call."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.benchmarks.base import alternate
from llm.curation.base import StreamedSource
from llm.curation.jsonl import JsonLines
from llm.curation.parquet import Parquet
from llm.runs.run import Run

Count = Annotated[int, Field(gt=0)]


class Reading:
    """One process reads the same random documents from both kinds of file, ours and theirs in turn.

    The references do the least that gives a frame of texts: ``json.loads`` line by line, and
    ``polars.read_parquet``. Ours also tell of what is no document, and hold a part of the file at a time.

    Args:
        n_megabytes: of text.
        n_characters: of a document on average, as of the Web's (C4's have some 2,200).
        n_rounds: how often each side is timed.
    """

    def __init__(
        self, n_megabytes: Count = 100, n_characters: Count = 2200, n_rounds: Count = 5, name: str = "reading"
    ) -> None:
        self.n_megabytes, self.n_characters, self.n_rounds, self.name = (
            n_megabytes,
            n_characters,
            n_rounds,
            name,
        )

    def measure(self, run: Run) -> dict[str, float]:
        """``ratio_jsonl``, ``ratio_parquet``: our seconds over theirs (below 1 is faster), with quartiles;
        megabytes of text a second of all sides.
        """  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="llm-benchmark-") as folder:
            jsonl, parquet = Path(folder) / "x.jsonl", Path(folder) / "x.parquet"
            texts = self._texts(run.seed)
            n_bytes = sum(len(text.encode()) for text in texts)
            jsonl.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
            pl.DataFrame({"text": texts}).write_parquet(parquet, row_group_size=10_000)
            sides: dict[str, Callable[[], object]] = {
                "jsonl": partial(_read, JsonLines(str(jsonl)), n_bytes),
                "json_loads": partial(_loop, jsonl, n_bytes),
                "parquet": partial(_read, Parquet(str(parquet)), n_bytes),
                "read_parquet": partial(_whole, parquet, n_bytes),
            }
            with run.progress("reading", (self.n_rounds + 1) * len(sides), unit="files") as progress:
                timings = alternate(sides, n_rounds=self.n_rounds, advance=progress.advance)
        metrics: dict[str, float] = {}
        for ours, theirs in (("jsonl", "json_loads"), ("parquet", "read_parquet")):
            metrics[f"ratio_{ours}"], low, high = timings.ratio(ours, theirs)
            metrics |= {f"ratio_{ours}_low": low, f"ratio_{ours}_high": high}
        metrics |= {f"megabytes_per_second_{name}": n_bytes / 1e6 / timings.median(name) for name in sides}
        run.log_table("timings", list(sides), list(zip(*timings.seconds.values(), strict=True)))
        return metrics

    def _texts(self, seed: int) -> list[str]:
        drawn = random.Random(seed)
        letters = "etaoinshrdlu" * 4 + "cmfwypvbgkjqxz" + "äéñ—“”"
        words = ["".join(drawn.choices(letters, k=drawn.randint(1, 9))) for _ in range(5000)] + ["\n", '"so"']
        texts, left = list[str](), self.n_megabytes * 1_000_000
        while left > 0:
            n_words = max(1, int(drawn.expovariate(6 / self.n_characters)))
            texts.append(" ".join(drawn.choices(words, k=n_words)))
            left -= len(texts[-1])
        return texts


def _read(source: StreamedSource, n_bytes: int) -> None:
    found = sum(
        int(frame["text"].str.len_bytes().sum()) for part in source.parts() for frame in source.read(part)
    )
    assert found == n_bytes


def _loop(path: Path, n_bytes: int) -> None:
    with path.open(encoding="utf-8") as file:
        frame = pl.DataFrame({"text": [json.loads(line)["text"] for line in file]})
    assert int(frame["text"].str.len_bytes().sum()) == n_bytes


def _whole(path: Path, n_bytes: int) -> None:
    assert int(pl.read_parquet(path, glob=False)["text"].str.len_bytes().sum()) == n_bytes
