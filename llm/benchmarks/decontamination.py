"""What the decontamination step finds of benchmark items planted in clean documents, and what it imagines."""

from __future__ import annotations

import random
import re
import string
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import polars as pl
from pydantic import Field

from llm.curation import files
from llm.curation.benchmark_items import Item, read_items
from llm.curation.decontamination import Decontamination
from llm.curation.numbered_words import words
from llm.inputs import read_jsonl, read_text
from llm.runs.run import Run
from llm.types import ConfigError

Count = Annotated[int, Field(gt=0)]


class Plant(NamedTuple):
    """An item as it was written into a document."""

    kind: str
    item: str
    document: int
    text: str


class PlantedItems:
    """Items of every benchmark written into clean documents: as they are, edited, and laid out otherwise.

    An item is planted as a user sees it: with all its choices, lettered, or with one of them.

    Args:
        data: Folder of the data sets below.
        clean: Folders in it of clean documents: text files, cut to pieces, and JSON lines with `text`.
        benchmarks: As the step's, paths in `data`.
        n_documents: Clean documents.
        n_plants: Documents of each kind into which an item is written.
        edited: Share of an item's words replaced, left out or put in, at least one.
        threshold: The step's, as are the next two.
        ngram: Words in a row that convict.
        min_words: Forms of an item with fewer words are not planted.
    """

    def __init__(
        self,
        data: str | None,
        clean: Sequence[str],
        benchmarks: Mapping[str, Mapping[str, Any]],
        n_documents: Count = 10_000,
        n_plants: Count = 3_000,
        edited: Annotated[float, Field(ge=0, le=1)] = 0.05,
        threshold: float = 0.6,
        ngram: int = 13,
        min_words: int = 5,
        name: str = "decontamination",
    ) -> None:
        self.data, self.clean, self.benchmarks = data, list(clean), benchmarks
        self.n_documents, self.n_plants, self.edited, self.name = n_documents, n_plants, edited, name
        self.threshold, self.ngram, self.min_words = threshold, ngram, min_words

    def measure(self, run: Run) -> dict[str, float]:
        """Shares found of each kind, of clean documents flagged, and speed on clean ones without the index.

        Raises:
            ConfigError: `data` is missing or holds less than asked for.
        """
        if self.data is None:
            raise ConfigError("data", None, "give the folder with the benchmarks and the clean documents")
        folder, rng = Path(self.data).expanduser(), random.Random(run.seed)
        named = {
            name: {**settings, "path": str(folder / settings["path"])}
            for name, settings in self.benchmarks.items()
        }
        step = Decontamination(named, self.threshold, self.ngram, self.min_words)
        step.prepare(run.say)
        documents = self._documents(folder, rng)
        planted, plants = self._plant(documents, named, rng)
        with run.progress("decontamination", 2 * len(documents), unit="documents") as progress:
            started, cpu = time.perf_counter(), time.process_time()
            flagged = _flagged(step, documents, progress.advance)
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            found = _flagged(step, planted, progress.advance)
        missed = [plant for plant in plants if found[plant.document] is None]
        run.log_table("missed", ["kind", "item", "document", "text"], [list(one) for one in missed])
        false = [(at, match, documents[at][:200]) for at, match in enumerate(flagged) if match is not None]
        run.log_table("flagged", ["document", "item", "text"], [list(one) for one in false])
        metrics = {}
        for kind in ("verbatim", "edited", "split"):
            of_kind = [plant for plant in plants if plant.kind == kind]
            n_missed = sum(plant.kind == kind for plant in missed)
            metrics[f"found_{kind}"] = 1 - n_missed / len(of_kind)
        n_bytes = sum(len(text.encode()) for text in documents)
        return metrics | {
            "false_positive_rate": len(false) / len(documents),
            "documents_per_second": len(documents) / seconds,
            "megabytes_per_cpu_second": n_bytes / 1e6 / cpu,
        }

    def _documents(self, folder: Path, rng: random.Random) -> list[str]:
        found: list[str] = []
        for name in self.clean:
            try:
                paths = files.find(str(folder / name), (".txt", ".txt.gz", ".jsonl", ".jsonl.gz"))
            except ConfigError as error:
                raise ConfigError("clean", error.value, error.mend) from None
            for path in paths:
                if ".jsonl" in path.suffixes:
                    found += [str(row["text"]) for _, row in read_jsonl([str(path)], key="clean")]
                else:
                    found += _pieces(read_text(path, key="clean"), rng)
        if len(found) < self.n_documents:
            mend = f"only {len(found):,} documents can be cut from {', '.join(self.clean)}"
            raise ConfigError("n_documents", self.n_documents, mend)
        return rng.sample(found, self.n_documents)

    def _plant(
        self, documents: Sequence[str], named: Mapping[str, Mapping[str, Any]], rng: random.Random
    ) -> tuple[list[str], list[Plant]]:
        """Documents with at most one item each; every benchmark is drawn from alike."""
        changes: dict[str, Callable[[str], str]] = {
            "verbatim": lambda text: text,
            "edited": lambda text: edit(text, self.edited, rng),
            "split": lambda text: lay_out(text, rng),
        }
        if self.n_plants * len(changes) > len(documents):
            mend = f"there are {len(documents):,} documents for {len(changes)} kinds of plants"
            raise ConfigError("n_plants", self.n_plants, mend)
        seen = [_seen(read_items(name, settings), self.min_words) for name, settings in named.items()]
        hosts = iter(rng.sample(range(len(documents)), self.n_plants * len(changes)))
        planted, plants = list(documents), []
        for kind, change in changes.items():
            for number in range(self.n_plants):
                item, text = rng.choice(seen[number % len(seen)])
                host, text = next(hosts), change(text)
                gaps = [gap.start() for gap in re.finditer(r"\s", documents[host])] or [len(documents[host])]
                place = rng.choice(gaps)
                planted[host] = f"{documents[host][:place]}\n{text}\n{documents[host][place:]}"
                plants.append(Plant(kind, item, host, text))
        return planted, plants


def edit(text: str, share: float, rng: random.Random) -> str:
    """A share of the words, at least one, replaced by another, left out, or followed by another."""
    pieces = re.findall(r"\s*\S+", text)
    for place in rng.sample(range(len(pieces)), max(1, round(share * len(pieces)))):
        other = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9)))
        pieces[place] = rng.choice([f" {other}", "", f"{pieces[place]} {other}"])
    return "".join(pieces)


def lay_out(text: str, rng: random.Random) -> str:
    """Other line breaks, spaces, case and punctuation; the same words."""
    width = rng.randint(1, 8)
    pieces = text.split()
    spaced = "".join(
        piece + ("\n" + " " * rng.randint(0, 4) if n % width == width - 1 else rng.choice([" ", "  ", "\t"]))
        for n, piece in enumerate(pieces)
    )
    marks = {ord(mark): rng.choice([" ", ";", " - "]) for mark in '.,?!:;"()'}
    laid_out = spaced.translate(marks)
    return rng.choice([laid_out.upper(), laid_out.lower(), laid_out.title(), laid_out])


def _seen(items: Sequence[Item], min_words: int) -> list[tuple[str, str]]:
    """Name and text of everything a user may see of the items, less what has too few words."""
    found = []
    for item in items:
        lettered = [
            part
            if len(part) == 1
            else [f"{string.ascii_uppercase[n % 26]}. {one}" for n, one in enumerate(part)]
            for part in item.parts
        ]
        found.append((item.name, "\n".join(piece for part in lettered for piece in part)))
        found += [(item.name, form) for form in item.forms()[1:]]
    enough = words(pl.Series([text for _, text in found])).list.len() >= min_words
    return [one for one, long in zip(found, enough, strict=True) if long]


def _pieces(text: str, rng: random.Random) -> list[str]:
    found, begin = [], 0
    while begin < len(text):
        end = begin + rng.randint(500, 2500)
        found.append(text[begin:end])
        begin = end
    return found


def _flagged(
    step: Decontamination, texts: Sequence[str], advance: Callable[[int], object]
) -> list[str | None]:
    """What the step finds in each text."""
    found: list[str | None] = []
    for begin in range(0, len(texts), 1000):
        part = pl.DataFrame({"text": texts[begin : begin + 1000]})
        found += step.annotate(part.lazy()).collect()["match"].to_list()
        advance(part.height)
    return found
