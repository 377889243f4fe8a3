"""task=curate: raw text to a training corpus, with every removed document accounted for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from llm import files, runtime
from llm.curation.base import Masking, Reviewed, Step
from llm.curation.bookkeeping import OnTraining, RemoveHeldOut, SplitOff, UniqueIds
from llm.curation.leaks import Leak
from llm.curation.ledger import Counts
from llm.curation.output import Output
from llm.curation.passes import blamed
from llm.curation.pipeline import AnyStep, Curation
from llm.curation.questions import describable
from llm.curation.runner import Runner, StaleWorkError, discard
from llm.reports import curated
from llm.runs.run import Run
from llm.types import ConfigError, inside

VERSION = 2

WORK = "work"
"""The folder in which the corpus lies between steps; gone when the outputs are written."""

QUIET = ("ids", "split")
"""Steps that every curation has, told of when they do something."""


def curate(*, run: Run, curation: Curation, resume: str | None = None) -> None:  # noqa: ARG001
    """Reads, judges, splits and mixes documents; writes the corpus, the ledger and a summary.

    The run's directory gets ``train.parquet`` and ``validation.parquet`` (id, text, source, domain, language,
    licence, provenance, n_bytes, and what steps have added), ``ledger.parquet`` (every removed, altered or
    repeated document; see `llm.curation.ledger`), ``funnel.parquet`` (the same by step and reason),
    ``summary.json``, ``data_card.md``, ``run.log`` (the funnel in words) and ``review/STEP.parquet`` where a
    step has findings to be looked at. With documented objects among the sources and `derive` also
    ``conversations_{train,validation}.jsonl``, ``preferences_{train,validation}.jsonl`` and ``exam.jsonl``.

    Args:
        run: Where the outputs go.
        curation: Sources, steps, split, mixture and derivation.
        resume: A run that was cut off, to go on with in its folder: shards that are done are kept.
    """
    if runtime.is_main():
        _Curating(run, curation).run()
    runtime.broadcast(None)  # the other processes wait for the files


class _Curating:
    """One curation under way: the counts so far and what has been said."""

    def __init__(self, run: Run, curation: Curation) -> None:
        self._run, self._curation = run, curation
        self._log: list[str] = []
        self._counts: list[Counts] = []
        self._derived: dict[str, Any] = {}
        self._notices: list[str] = []

    def run(self) -> None:
        curation, directory = self._curation, self._run.directory
        for left in directory.glob(".*.tmp"):  # of a run that was killed while it wrote, or deleted its work
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._prepare()
        marks = curation.marks()
        plan = files.digest(list(marks.items()))
        if (summary := _finished(directory, plan)) is not None:
            self._run.say("nothing has changed since this curation was finished")
            curated.write_tables(directory)
            self._run.summary.update(_metrics(summary))
            return
        try:
            work = self._work(marks)
        except StaleWorkError:
            self._run.say("settings have changed: what an earlier start has left is of no use")
            discard(directory / WORK)
            self._log, self._counts = [f"note: {notice}" for notice in self._notices], []
            work = self._work(marks)
        self._write(work, plan)  # when the engine's processes have given their memory back
        work.clear()

    def _work(self, marks: Mapping[str, str]) -> Runner:
        """Takes the corpus through everything but the last writing."""
        curation = self._curation
        with curation.engine as engine:
            attributes = Path(curation.attributes).expanduser() if curation.attributes else None
            folder, progress = self._run.directory / WORK, self._run.progress
            work = Runner(folder, marks, engine, progress, attributes, self._note)
            if work.resumed:
                self._run.say("going on with what an earlier start has left")
            first = UniqueIds(list(curation.sources))
            self._read(work, first)
            judged = [("ids", first), *curation.steps.items(), ("split", SplitOff(curation.split))]
            leaks = [("leaks", curation.leaks)] if curation.leaks is not None else []
            mixture = [("mixture", OnTraining(curation.mixture))] if curation.mixture is not None else []
            if curation.derive is None:
                self._carry_out(work, [*judged, *leaks, *mixture], surveyed=True)
            else:
                self._carry_out(work, judged, surveyed=True)
                held_groups = self._held_groups(work)
                self._carry_out(work, leaks, surveyed=False)
                removed = self._derive(work, held_groups, marks["leaked_objects"])
                self._carry_out(work, [*removed, *mixture], surveyed=False)
        work.scan()  # a later pass of other settings may have used the documents up
        return work

    def _prepare(self) -> None:
        """Whatever a component wants to fetch or check once, before the first document is read."""
        curation = self._curation
        for name, one in {**curation.steps, "mixture": curation.mixture}.items():
            prepare = getattr(one, "prepare", None)
            if prepare is not None:
                with blamed(name):
                    prepare(self._note)
        for name, reader in curation.sources.items():
            if prepare := getattr(reader, "prepare", None):
                with inside(f"curation.sources.{name}"):
                    prepare(lambda line, name=name: self._note(f"curation.sources.{name}.{line}"))
        for name, source in curation.object_sources.items():
            with self._run.progress(f"read {name}", source.n_files, unit="files") as progress:
                source.objects(progress.advance)

    def _note(self, text: str) -> None:
        self._notices.append(text)
        self._say(f"note: {text}")

    def _read(self, work: Runner, first: UniqueIds) -> None:
        curation = self._curation
        grouped = bool(curation.object_sources)
        counts = work.read(curation.sources, first, shard_bytes=curation.shard_bytes, grouped=grouped)
        if not counts.documents_out:
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in counts.row()["reasons"].items())
            value = f"0 documents ({reasons})" if reasons else "0 documents"
            raise ConfigError("curation.sources", value, "the sources hold no document that can be read")
        self._counts.append(counts)
        self._say(counts.line())

    def _carry_out(self, work: Runner, steps: Sequence[tuple[str, AnyStep]], *, surveyed: bool) -> None:
        try:
            for counts in work.carry_out(steps, surveyed=surveyed):
                self._counts.append(counts)
                if counts.step not in QUIET or counts.reasons:
                    self._say(counts.line())
        except ConfigError as error:
            if error.key != "curation.steps":
                raise
            most = max(self._counts, key=lambda one: one.removed)
            mend = f"{error.mend}; {most.step} removed {most.removed:,} of {most.documents_in:,}"
            raise ConfigError(error.key, error.value, mend) from error

    @staticmethod
    def _held_groups(work: Runner) -> set[str]:
        """Groups on the held-out side, before leaks empty any; kept for a run that is resumed."""
        path = work.folder / "held_groups.json"
        if not path.is_file():
            held = work.scan().filter("held_out").select(pl.col("group").unique().sort()).collect()
            files.write_json(path, held["group"].to_list())
        return set(files.read_json(path))

    def _derive(self, work: Runner, held_groups: set[str], mark: str) -> list[tuple[str, Step]]:
        """Writes what is derived from documented objects; a step that removes held-out objects that leak.

        What it finds is kept for a run that is resumed: the documents it is found in go with the next pass.
        """
        path, plan = work.folder / "derived.json", [*work.plan, mark]
        saved = files.read_json(path) if path.is_file() else {}
        if saved.get("plan") != plan:
            leaks = self._derived_anew(work, held_groups)
            files.write_json(path, {"plan": plan, "leaks": leaks, "derived": self._derived})
        else:
            leaks, self._derived = saved["leaks"], saved["derived"]
        self._say_derived()
        return [("leaked_objects", RemoveHeldOut(leaks))] if self._curation.leaks is not None else []

    def _derived_anew(self, work: Runner, held_groups: set[str]) -> dict[str, Leak]:
        """Held-out documents whose objects leak, by id."""
        curation = self._curation
        assert curation.derive is not None
        everything = curation.objects()
        good = describable(everything)
        # an id that another source has too has its source's name in front
        prefixes = ["", *(f"{name}/" for name in curation.object_sources)]
        gone = set(pl.concat(work.ledgers()).filter(pl.col("step") == "leaks").select("id").collect()["id"])
        told = [one for one in good if one.group not in held_groups]
        held = [
            one
            for one in good
            if one.group in held_groups and gone.isdisjoint(f"{first}docs:{one.name}" for first in prefixes)
        ]
        leaks: dict[str, Leak] = {}
        if curation.leaks is not None:
            train = (frame.filter(~pl.col("held_out"))["text"] for frame in work.frames(["text", "held_out"]))
            # also what a step or a byte limit kept out of the training text: questions may quote it
            more = pl.Series("text", [f"{one.summary}\n{one.doc}" for one in told], pl.String)
            leaks = curation.leaks.among_objects(told, held, chain(train, [more]))
            held = [one for one in held if one.name not in leaks]
        if not told or not held:
            raise ConfigError(
                "curation.split", f"{len(told)} and {len(held)} objects", "both sides need documented objects"
            )
        with self._run.progress("derive questions", 4, unit="parts") as progress:
            self._derived = curation.derive.write(told, held, self._run.directory, progress.advance)
        self._derived["objects"] = {"read": len(everything), "train": len(told), "validation": len(held)}
        return {f"{first}docs:{name}": leak for name, leak in leaks.items() for first in prefixes}

    def _say_derived(self) -> None:
        found = self._derived
        baseline, pairs = found["baseline"], found["preferences"]
        self._say(
            f"derived: {found['conversations']['train']:,} conversations, {pairs['train']:,} "
            f"preference pairs ({pairs['validation']:,} held out), {found['exam']['questions']:,} "
            f"exam questions; best bag of words: pairs {baseline['pairs_accuracy']:.1%} (chance 50 %), "
            f"exam {baseline['exam_accuracy']:.1%} (chance 25 %)"
        )

    def _write(self, work: Runner, plan: str) -> None:
        output = Output(self._run.directory)
        with self._run.progress("write", 3, unit="files") as progress:
            sides = {}
            for name, held_out in (("train", False), ("validation", True)):
                documents = work.scan().filter(pl.col("held_out") == held_out).drop("held_out")
                sides[name] = output.side(name, documents)
                progress.advance()
            masks = [step for step in self._curation.steps.values() if isinstance(step, Masking)]
            change = output.ledger(list(work.ledgers()), masks)
            for name, step in self._curation.steps.items():
                if isinstance(step, Reviewed):
                    output.review(name, [*work.reviews(name), step.unchecked().lazy()])
            progress.advance()
        for name, side in sides.items():
            if not side["documents"]:
                raise ConfigError(
                    "curation.split",
                    f"no {name} documents",
                    "change split.validation_fraction or relax the steps",
                )
        read = self._counts[0].documents_in
        written = sum(side["documents"] for side in sides.values())
        assert read + change == written, "the ledger does not account for every document"
        funnel = [one.row() for one in self._counts if one.step not in QUIET or one.reasons]
        summary: dict[str, Any] = {
            "plan": plan,
            "documents": {
                "read": read, **{name: side["documents"] for name, side in sides.items()},
                "removed": sum(one.removed for one in self._counts),
                "repeated": sum(one.added for one in self._counts),
                "altered": sum(one.altered for one in self._counts),
            },
            "bytes": {name: side["bytes"] for name, side in sides.items()},
            "domains": {name: side["domains"] for name, side in sides.items()},
            "languages": {name: side["languages"] for name, side in sides.items()},
            "licences": {name: side["licences"] for name, side in sides.items()},
            "funnel": funnel,
            "fingerprints": {
                "inputs": {name: source.fingerprint() for name, source in self._curation.sources.items()},
                "outputs": output.fingerprints(),
            },
            "notices": self._notices,
            **self._derived,
        }  # fmt: skip
        self._say(
            f"written: {sides['train']['documents']:,} training documents "
            f"({sides['train']['bytes']:,} bytes), {sides['validation']['documents']:,} held out "
            f"({sides['validation']['bytes']:,} bytes)"
        )
        files.write_json(self._run.directory / "summary.json", summary)
        files.write_text(self._run.directory / "run.log", "\n".join(self._log) + "\n")
        curated.write_tables(self._run.directory)
        self._report(summary)

    def _report(self, summary: dict[str, Any]) -> None:
        metrics = _metrics(summary)
        self._run.log(metrics, step=0)
        self._run.log_table("funnel", *_table(summary["funnel"]))
        self._run.log_table("rates", *_rates(self._counts))
        self._run.summary.update(metrics)

    def _say(self, text: str) -> None:
        self._run.say(text)
        self._log.append(text)


def _finished(directory: Path, plan: str) -> dict[str, Any] | None:
    """The summary of a curation that has run to its end in this folder under the same plan."""
    try:
        summary = dict(files.read_json(directory / "summary.json"))
        same = summary["plan"] == plan and not (directory / WORK).exists()
        digests = summary["fingerprints"]["outputs"]
        whole = same and all(files.sha256_file(directory / name) == mark for name, mark in digests.items())
    except (OSError, ValueError, KeyError):
        return None
    return summary if whole else None


def _metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    metrics: dict[str, float] = {
        "train_documents": summary["documents"]["train"],
        "validation_documents": summary["documents"]["validation"],
        "train_bytes": summary["bytes"]["train"],
        "validation_bytes": summary["bytes"]["validation"],
        "removed_documents": summary["documents"]["removed"],
        "altered_documents": summary["documents"]["altered"],
    }
    if "baseline" in summary:
        metrics |= {
            "baseline_pairs_accuracy": summary["baseline"]["pairs_accuracy"],
            "baseline_exam_accuracy": summary["baseline"]["exam_accuracy"],
            "exam_questions": summary["exam"]["questions"],
        }
    return metrics


def _table(funnel: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[object]]]:
    columns = ["step", "documents_in", "documents_out", "bytes_in", "bytes_out", "altered", "reasons"]
    return columns, [
        [
            "; ".join(f"{reason} {n}" for reason, n in step[c].items()) if c == "reasons" else step[c]
            for c in columns
        ]
        for step in funnel
    ]


def _rates(counts: Sequence[Counts]) -> tuple[list[str], list[list[object]]]:
    """What a core does in a second of its time, by step."""
    columns = [
        "step",
        "documents",
        "megabytes",
        "core_seconds",
        "documents_per_second",
        "megabytes_per_second",
    ]
    rows: list[list[object]] = []
    for one in counts:
        megabytes = one.bytes_in / 1e6
        pace = [one.documents_in / one.seconds, megabytes / one.seconds] if one.seconds else [0.0, 0.0]
        rows.append([one.step, one.documents_in, megabytes, one.seconds, *pace])
    return columns, rows
