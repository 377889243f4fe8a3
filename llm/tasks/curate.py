"""task=curate: raw text to a training corpus, with every removed document accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from llm import files, runtime
from llm.curation.leaks import remover
from llm.curation.ledger import Ledger, text_bytes
from llm.curation.pipeline import Curation
from llm.curation.questions import describable
from llm.runs.run import Run
from llm.types import ConfigError

VERSION = 1

OUTPUT_COLUMNS = ("id", "text", "source", "domain", "language", "n_bytes")


def curate(*, run: Run, curation: Curation) -> None:
    """Reads, judges, splits and mixes documents; writes the corpus, the ledger and a summary.

    The run's directory gets ``train.parquet`` and ``validation.parquet`` (id, text, source, domain, language,
    n_bytes), ``ledger.parquet`` (every removed or repeated document: id, source, domain, step, reason, score,
    match, excerpt, n_bytes, change), ``summary.json`` and ``run.log`` (the funnel in words). With a source of
    documented objects and `derive` also ``conversations_{train,validation}.jsonl``,
    ``preferences_{train,validation}.jsonl`` and ``exam.jsonl``.

    Args:
        run: Where the outputs go.
        curation: Sources, steps, split, mixture and derivation.
    """
    if runtime.is_main():
        _Curating(run, curation).run()
    runtime.broadcast(None)  # the other processes wait for the files


class _Curating:
    """One curation under way: the ledger so far and what has been said."""

    def __init__(self, run: Run, curation: Curation) -> None:
        self._run, self._curation = run, curation
        self._ledger = Ledger()
        self._log: list[str] = []
        self._derived: dict[str, Any] = {}
        self._notices: list[str] = []

    def run(self) -> None:
        documents = self._read()
        read = documents.height
        for name, step in self._curation.steps.items():
            with self._run.progress(f"step {name}", None, unit="documents") as progress:
                documents = self._ledger.apply(name, documents, step.annotate)
                progress.advance(documents.height)
            for notice in getattr(step, "notices", ()):
                self._notices.append(notice)
                self._say(f"note: {notice}")
            self._say(self._ledger.lines()[-1])
        if documents.height < 2:
            raise ConfigError(
                "steps",
                f"{documents.height} documents left",
                "too few for training and validation; relax the steps",
            )
        train, validation = self._split(documents)
        self._write(read, train, validation)

    def _read(self) -> pl.DataFrame:
        frames = {}
        for name, source in self._curation.object_sources.items():
            with self._run.progress(f"read {name}", source.n_files, unit="files") as progress:
                source.objects(progress.advance)
        for name in self._curation.sources:
            with self._run.progress(f"documents of {name}", None, unit="documents") as progress:
                frames[name] = self._curation.read(name)
                progress.advance(frames[name].height)
            self._say(f"{name}: {frames[name].height:,} documents, {text_bytes(frames[name]):,} bytes")
        return self._curation.join(frames)

    def _split(self, documents: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The two sides; leaks gone from validation, the mixture applied to training."""
        held = self._curation.split.held_out(documents)
        train, validation = documents.filter(~held), documents.filter(held)
        held_groups = set(validation["group"]) if "group" in validation.columns else set()
        if self._curation.leaks is not None and train.height and validation.height:
            with self._run.progress("compare validation with training", None, unit="documents") as progress:
                leaks = self._curation.leaks.among_documents(train, validation)
                validation = self._ledger.apply("leaks", validation, remover(leaks))
                progress.advance(documents.height)
            self._say(self._ledger.lines()[-1])
        if self._curation.derive is not None:
            validation = self._derive(train, validation, held_groups)
        if self._curation.mixture is not None:
            train = self._ledger.apply("mixture", train, self._curation.mixture.annotate)
            self._say(self._ledger.lines()[-1])
        for name, side in (("train", train), ("validation", validation)):
            if not side.height:
                raise ConfigError(
                    "split", f"no {name} documents", "change split.validation_fraction or relax the steps"
                )
        return train, validation

    def _derive(self, train: pl.DataFrame, validation: pl.DataFrame, held_groups: set[str]) -> pl.DataFrame:
        """Writes what is derived from documented objects; validation without the objects that leak."""
        curation = self._curation
        assert curation.derive is not None
        everything = curation.objects()
        good = describable(everything)
        gone = set(self._ledger.frame().filter(step="leaks")["id"])  # their documents repeat training's
        told = [one for one in good if one.group not in held_groups]
        held = [one for one in good if one.group in held_groups and f"docs:{one.name}" not in gone]
        if curation.leaks is not None:
            # also what a step or a byte limit kept out of the training text: questions may quote it
            more = [f"{one.summary}\n{one.doc}" for one in told]
            texts = pl.concat([train["text"], pl.Series("text", more, pl.String)])
            leaks = curation.leaks.among_objects(told, held, texts)
            held = [one for one in held if one.name not in leaks]
            by_id = {f"docs:{name}": leak for name, leak in leaks.items()}
            validation = self._ledger.apply("leaked_objects", validation, remover(by_id))
            self._say(self._ledger.lines()[-1])
        if not told or not held:
            raise ConfigError(
                "split", f"{len(told)} and {len(held)} objects", "both sides need documented objects"
            )
        with self._run.progress("derive questions", 4, unit="parts") as progress:
            self._derived = curation.derive.write(told, held, self._run.directory, progress.advance)
        self._derived["objects"] = {"read": len(everything), "train": len(told), "validation": len(held)}
        self._say_derived()
        return validation

    def _say_derived(self) -> None:
        found = self._derived
        baseline, pairs = found["baseline"], found["preferences"]
        self._say(
            f"derived: {found['conversations']['train']:,} conversations, {pairs['train']:,} "
            f"preference pairs ({pairs['validation']:,} held out), {found['exam']['questions']:,} "
            f"exam questions; best bag of words: pairs {baseline['pairs_accuracy']:.1%} (chance 50 %), "
            f"exam {baseline['exam_accuracy']:.1%} (chance 25 %)"
        )

    def _write(self, read: int, train: pl.DataFrame, validation: pl.DataFrame) -> None:
        directory = self._run.directory
        ledger = self._ledger.frame()
        written = train.height + validation.height
        assert read + int(ledger["change"].sum()) == written, "the ledger does not account for every document"
        _write_parquet(directory / "train.parquet", _output(train))
        _write_parquet(directory / "validation.parquet", _output(validation))
        _write_parquet(directory / "ledger.parquet", ledger)
        summary: dict[str, Any] = {
            "documents": {"read": read, "train": train.height, "validation": validation.height,
                          "removed": int((ledger["change"] < 0).sum())},
            "bytes": {"train": text_bytes(train), "validation": text_bytes(validation)},
            "domains": {"train": _domains(train), "validation": _domains(validation)},
            "funnel": self._ledger.funnel,
            "notices": self._notices,
            **self._derived,
        }  # fmt: skip
        self._say(
            f"written: {train.height:,} training documents ({text_bytes(train):,} bytes), "
            f"{validation.height:,} held out ({text_bytes(validation):,} bytes)"
        )
        files.write_json(directory / "summary.json", summary)
        files.write_text(directory / "run.log", "\n".join(self._log) + "\n")
        self._report(summary)

    def _report(self, summary: dict[str, Any]) -> None:
        metrics: dict[str, float] = {
            "train_documents": summary["documents"]["train"],
            "validation_documents": summary["documents"]["validation"],
            "train_bytes": summary["bytes"]["train"],
            "validation_bytes": summary["bytes"]["validation"],
            "removed_documents": summary["documents"]["removed"],
        }
        if self._derived:
            metrics |= {
                "baseline_pairs_accuracy": summary["baseline"]["pairs_accuracy"],
                "baseline_exam_accuracy": summary["baseline"]["exam_accuracy"],
                "exam_questions": summary["exam"]["questions"],
            }
        self._run.log(metrics, step=0)
        self._run.log_table("funnel", *_table(summary["funnel"]))
        self._run.summary.update(metrics)

    def _say(self, text: str) -> None:
        self._run.say(text)
        self._log.append(text)


def _table(funnel: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[object]]]:
    columns = ["step", "documents_in", "documents_out", "bytes_in", "bytes_out"]
    return columns, [[row[column] for column in columns] for row in funnel]


def _output(side: pl.DataFrame) -> pl.DataFrame:
    """The columns every reader of the corpus may count on; a step's further columns come after them."""
    if "language" not in side.columns:
        side = side.with_columns(pl.lit(None, pl.String).alias("language"))
    side = side.with_columns(pl.col("text").str.len_bytes().cast(pl.Int64).alias("n_bytes"))
    return side.select(*OUTPUT_COLUMNS, *(name for name in side.columns if name not in OUTPUT_COLUMNS))


def _domains(side: pl.DataFrame) -> dict[str, dict[str, int]]:
    sizes = side.group_by("domain").agg(pl.len().alias("n"), pl.col("text").str.len_bytes().sum().alias("b"))
    return {domain: {"documents": n, "bytes": b} for domain, n, b in sizes.sort("domain").iter_rows()}


def _write_parquet(path: Path, frame: pl.DataFrame) -> None:
    with files.replacing(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=False)
