"""Our rules of thumb against datatrove's filters of the same papers, on one thread, with their decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from llm.benchmarks.base import alternate
from llm.curation.base import Step
from llm.curation.c4 import C4Quality
from llm.curation.fineweb import FineWebQuality
from llm.curation.quality import GopherQuality
from llm.curation.repetition import GopherRepetition
from llm.inputs import read_jsonl
from llm.runs.run import Run
from llm.types import ConfigError

Count = Annotated[int, Field(gt=0)]
Rules = Literal["quality", "repetition", "c4", "fineweb"]

FILTERS = {
    "quality": "GopherQualityFilter",
    "repetition": "GopherRepetitionFilter",
    "c4": "C4QualityFilter",
    "fineweb": "FineWebQualityFilter",
}
"""datatrove's name of each set of rules."""


class Gopher:
    """The same documents judged by a step of ours and by datatrove's filter, in turn.

    Seconds are those of the processor (all threads of this process together), so what else the machine does
    and how many cores it has does not count. datatrove cuts words with spaCy; that is part of its filter.

    Args:
        rules: which filter. `quality` is measured without the bounds on duplicate lines, which that filter of
            datatrove's has not.
        path: a file of JSON lines with a `text` each (.jsonl, .jsonl.gz); synthetic prose when null.
        n_documents: how many documents, at most.
        n_rounds: how often each side is timed.
    """

    def __init__(
        self,
        rules: Rules = "quality",
        path: str | None = None,
        n_documents: Count = 200,
        n_rounds: Count = 3,
        name: str = "gopher",
    ) -> None:
        self.rules, self.path, self.name = rules, path, name
        self.n_documents, self.n_rounds = n_documents, n_rounds

    def measure(self, run: Run) -> dict[str, float]:
        """``ratio``: how many times faster ours is, with quartiles; ``agreement``: share of same decisions.

        Raises:
            ConfigError: datatrove or spaCy is not installed; the file is missing, broken or empty.
        """
        texts = self._texts(run.seed)
        kept: dict[str, list[bool]] = {}
        sides = {"ours": _ours(self.rules, texts, kept), "datatrove": _theirs(self.rules, texts, kept)}
        with run.progress(f"rules: {self.rules}", (self.n_rounds + 1) * 2, unit="rounds") as progress:
            timings = alternate(
                sides, n_rounds=self.n_rounds, advance=progress.advance, clock=time.process_time
            )
        ratio, low, high = timings.ratio("datatrove", "ours")
        n_bytes = sum(len(text.encode()) for text in texts)
        run.log_table("timings", list(sides), list(zip(*timings.seconds.values(), strict=True)))
        return {
            "ratio": ratio,
            "ratio_low": low,
            "ratio_high": high,
            "agreement": float(np.mean(np.equal(kept["ours"], kept["datatrove"]))),
            "kept": float(np.mean(kept["ours"])),
            "documents_per_second": len(texts) / timings.median("ours"),
            "datatrove_documents_per_second": len(texts) / timings.median("datatrove"),
            "megabytes_per_second": n_bytes / 1e6 / timings.median("ours"),
            "n_documents": float(len(texts)),
        }

    def _texts(self, seed: int) -> list[str]:
        if self.path is None:
            return prose(self.n_documents, seed)
        texts = []
        for place, row in read_jsonl([self.path], key="path"):
            if not isinstance(row.get("text"), str):
                raise ConfigError("path", self.path, f"line {place.line} has no text")
            texts.append(row["text"])
            if len(texts) == self.n_documents:
                break
        return texts


def _ours(rules: Rules, texts: Sequence[str], kept: dict[str, list[bool]]) -> Callable[[], None]:
    none = {f"max_duplicate_{part}": 1.0 for part in ("lines", "line_chars", "paragraphs", "paragraph_chars")}
    steps: dict[Rules, Callable[[], Step]] = {
        "quality": lambda: GopherQuality(**none),  # type: ignore[arg-type]
        "repetition": GopherRepetition,
        "c4": lambda: C4Quality(min_words_per_line=3, min_sentences=5),  # as in datatrove
        "fineweb": FineWebQuality,
    }
    step = steps[rules]()
    frame = pl.DataFrame({"id": [str(number) for number in range(len(texts))], "text": texts})
    documents = frame.with_columns(pl.lit("text").alias("domain")).lazy()

    def judge() -> None:
        kept["ours"] = step.annotate(documents).collect()["keep"].to_list()

    return judge


def _theirs(rules: Rules, texts: Sequence[str], kept: dict[str, list[bool]]) -> Callable[[], None]:
    try:
        import spacy  # noqa: F401  (what datatrove cuts words with)
        from datatrove.data import Document
        from datatrove.pipeline import filters
    except ImportError:
        mend = "needs the packages datatrove and spacy: pip install -e '.[compare]'"
        raise ConfigError("benchmark", "gopher", mend) from None
    rule = getattr(filters, FILTERS[rules])()

    def verdict(text: str) -> bool:
        found: Any = rule.filter(Document(text=text, id=""))
        return bool(found[0] if isinstance(found, tuple) else found)

    def judge() -> None:
        kept["datatrove"] = [verdict(text) for text in texts]

    return judge


def prose(n_documents: int, seed: int) -> list[str]:
    """Documents like those of the web, one in seven of them broken on purpose.

    Sentences of words whose frequencies follow Zipf's law, with stop words, numbers and contractions;
    among them documents that are short, lists, tables of numbers, full of hashes, or repeat themselves.
    """
    random = np.random.default_rng(seed)
    letters = random.choice(list("aeioulnrstmdkpb"), (4000, 10))
    stems = ["".join(row[:length]) for row, length in zip(letters, random.integers(3, 10, 4000), strict=True)]
    vocabulary = np.array(["the", "of", "and", "to", "that", "with", "have", "be", "it's", "don't", *stems])
    weights = 1 / np.arange(2, len(vocabulary) + 2)
    weights /= weights.sum()

    def sentence() -> str:
        words = random.choice(vocabulary, random.integers(6, 26), p=weights)
        text = " ".join(words.tolist()).capitalize()
        return text.replace(" with", ", with", 1) + str(random.choice([".", ".", ".", "?", "!", "..."]))

    def paragraph() -> str:
        return " ".join(sentence() for _ in range(random.integers(2, 8)))

    def table() -> str:
        numbers = random.integers(0, 100000, (30, 4)).tolist()
        return "\n".join(" | ".join(map(str, row)) for row in numbers)

    kinds: list[Callable[[str], str]] = [
        lambda _: sentence(),
        lambda _: "\n".join(f"- {sentence()}" for _ in range(12)),
        lambda text: f"{text}\n{table()}",
        lambda text: text + " #tag" * int(random.integers(0, 80)),
        lambda text: "\n".join([text, *[sentence()] * int(random.integers(0, 12))]),
        lambda text: text.replace(".", "..."),
    ]
    texts = []
    for number in range(n_documents):
        text = "\n".join(paragraph() for _ in range(random.integers(2, 12)))
        kind = number % (7 * len(kinds))
        texts.append(kinds[kind](text) if kind < len(kinds) else text)
    return texts
