"""Removing near duplicates: ours, verified, against datatrove and datasketch, which are not."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from llm.benchmarks.base import alternate
from llm.benchmarks.planted import plant, true_pairs
from llm.curation.base import Corpus, CorpusStep
from llm.curation.near_dedup import NearDedup
from llm.curation.near_duplicates import WORD, shingles
from llm.runs.run import Run
from llm.types import ConfigError

Count = Annotated[int, Field(gt=0)]

SHARD_DOCUMENTS = 16_000
"""About 32 MB of text, as the runner makes them."""


class Dedup:
    """Texts to ids of removed documents, on a corpus of made-up words with near duplicates planted in it.

    Sides: ours (the three acts of `NearDedup`, every removal verified exactly), datatrove's four stages at
    their defaults (spaCy's tokenizer), datatrove's with words found by a regular expression, and datasketch's
    MinHashLSH with our shingles, bands and rows. What counts is the processor time of the whole process, all
    threads together, so that it is the speed of one thread. The work of the others grows with the number of
    documents, so they get a random part of the corpus and documents per second are compared.

    Args:
        n_documents: Documents of about 2 KB.
        n_reference_documents: So many of them the other sides get.
        n_rounds: How often each side is timed.
    """

    def __init__(
        self,
        n_documents: Annotated[int, Field(ge=20)] = 20_000,
        n_reference_documents: Count = 2_000,
        n_rounds: Count = 3,
        name: str = "dedup",
    ) -> None:
        self.n_documents, self.n_rounds, self.name = n_documents, n_rounds, name
        self.n_reference_documents = min(n_documents, n_reference_documents)

    def measure(self, run: Run) -> dict[str, float]:
        """How many times faster we are (medians of ratios), recall and precision, documents a second.

        `recall`: of all pairs of similarity 0.8 or more, the share of which one document is gone.
        `precision`: of all removals, the share whose document and match are such a pair.

        Raises:
            ConfigError: datatrove or datasketch is not installed.
        """
        step = NearDedup()
        planted = plant(self.n_documents, run.seed, step.shingler.length)
        part = planted.texts[: self.n_reference_documents]
        sides: dict[str, Callable[[], object]] = {
            "datatrove": datatrove_side(part),
            "datatrove_regex": datatrove_side(part, WORD.findall),
            "datasketch": datasketch_side(part, step),
        }
        with tempfile.TemporaryDirectory(prefix="llm-benchmark-") as folder:
            shards = _write(planted.texts, Path(folder))
            sides = {"ours": partial(_removed, step, shards, Path(folder)), **sides}
            with run.progress("near duplicates", (self.n_rounds + 1) * len(sides), unit="rounds") as progress:
                # all threads of the process count, so that more of them are no advantage
                timings = alternate(
                    sides, n_rounds=self.n_rounds, advance=progress.advance, clock=time.process_time
                )
            removed = _removed(step, shards, Path(folder))
        metrics: dict[str, float] = {}
        for name in list(sides)[1:]:
            scale = self.n_documents / self.n_reference_documents
            middle, low, high = (scale * ratio for ratio in timings.ratio(name, "ours"))
            metrics |= {f"ratio_{name}": middle, f"ratio_{name}_low": low, f"ratio_{name}_high": high}
        metrics |= quality(removed, true_pairs(planted.texts, step.shingler.length, step.threshold))
        for name in sides:
            size = self.n_documents if name == "ours" else self.n_reference_documents
            metrics[f"documents_per_second_{name}"] = size / timings.median(name)
        run.log_table("timings", list(sides), list(zip(*timings.seconds.values(), strict=True)))
        return metrics


def quality(removed: Mapping[int, int], truth: Mapping[tuple[int, int], float]) -> dict[str, float]:
    """Recall and precision of removals (document: what it repeats) against all true pairs."""
    found = sum(first in removed or second in removed for first, second in truth)
    right = sum((min(pair), max(pair)) in truth for pair in removed.items())
    return {
        "recall": found / len(truth) if truth else 1.0,
        "precision": right / len(removed) if removed else 1.0,
        "n_pairs": float(len(truth)),
        "n_removed": float(len(removed)),
    }


def datatrove_side(
    texts: Sequence[str], words: Callable[[str], list[str]] | None = None
) -> Callable[[], object]:
    """datatrove's signatures, buckets, clusters and filter; `words` replaces its tokenizer.

    Raises:
        ConfigError: datatrove or spacy is not installed.
    """
    try:
        import spacy  # noqa: F401  (datatrove cuts words with it)
        from datatrove.data import Document
        from datatrove.pipeline.dedup.minhash import (
            MinhashConfig,
            MinhashDedupBuckets,
            MinhashDedupCluster,
            MinhashDedupFilter,
            MinhashDedupSignature,
        )
        from datatrove.utils.logging import logger
    except ImportError:
        raise _missing("datatrove, with spacy,") from None
    logger.disable("datatrove")
    documents = [Document(text, str(number)) for number, text in enumerate(texts)]
    config = MinhashConfig()

    def remove() -> list[Any]:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            signatures, pairs, gone = (f"{folder}/{name}" for name in ("signatures", "pairs", "gone"))
            signer = MinhashDedupSignature(signatures, config)
            # datatrove 0.10 hands xxhash a text, and xxhash 4 takes bytes only
            hashed = signer._hash_func
            signer._hash_func = lambda shingle: hashed(shingle.encode())
            if words is not None:
                signer.word_tokenizer = _Words(words)
            signer.run(documents, 0, 1)
            for rank in range(config.num_buckets):
                MinhashDedupBuckets(signatures, pairs, config=config).run(None, rank, config.num_buckets)
            MinhashDedupCluster(pairs, gone, config).run(None, 0, 1)
            return list(MinhashDedupFilter(gone).run(documents, 0, 1))

    return remove


class _Words:
    def __init__(self, words: Callable[[str], list[str]]) -> None:
        self.word_tokenize = words


def datasketch_side(texts: Sequence[str], step: NearDedup) -> Callable[[], object]:
    """datasketch's MinHash and LSH with the shingles, bands and rows of `step`.

    Raises:
        ConfigError: datasketch is not installed.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        raise _missing("datasketch") from None
    n_bands, n_rows = step.minhash.n_bands, step.minhash.n_rows

    def remove() -> list[int]:
        index = MinHashLSH(num_perm=n_bands * n_rows, params=(n_bands, n_rows))
        gone = []
        for number, text in enumerate(texts):
            signature = MinHash(num_perm=n_bands * n_rows)
            signature.update_batch([one.encode() for one in shingles(text, step.shingler.length)])
            if index.query(signature):
                gone.append(number)
            else:
                index.insert(number, signature)
        return gone

    return remove


def _missing(package: str) -> ConfigError:
    return ConfigError("benchmark", "dedup", f"needs {package}: pip install -e '.[compare]'")


def _write(texts: Sequence[str], folder: Path) -> list[tuple[Path, pl.DataFrame]]:
    """Shards as the runner keeps them, with the documents in memory, as the other sides have them."""
    (folder / "scratch").mkdir()
    documents = pl.DataFrame({"id": [str(number) for number in range(len(texts))], "text": texts})
    shards = []
    for number, frame in enumerate(documents.iter_slices(SHARD_DOCUMENTS)):
        path = folder / f"{number:05}.parquet"
        frame.write_parquet(path, compression="lz4", statistics=False)
        shards.append((path, frame))
    return shards


def _removed(step: CorpusStep, shards: Sequence[tuple[Path, pl.DataFrame]], folder: Path) -> dict[int, int]:
    """The numbers of removed documents, and of what each repeats."""
    surveys = []
    for path, frame in shards:
        surveys.append(path.with_suffix(".survey"))
        step.survey(frame).write_parquet(surveys[-1])
    decisions = step.decide(Corpus([path for path, _ in shards], surveys, folder / "scratch"))
    found: dict[int, int] = {}
    for number, (_, frame) in enumerate(shards):
        judged = step.apply(frame, decisions.filter(shard=number).drop("shard"))
        gone = judged.filter(~pl.col("keep")).select("id", "match")
        found |= {int(one): int(match) for one, match in gone.iter_rows()}
    return found
