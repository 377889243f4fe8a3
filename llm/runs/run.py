"""The run a task is handed: where its files go, its metrics, its words to people, its progress."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from llm import files, runtime
from llm.runs.directory import parse_lines, read_metrics
from llm.runs.progress import Display, Progress
from llm.runs.tracker import NoTracker, Tracker

FACTS = ("n_params", "tokens", "weights_sha256")
"""Entries of `Run.summary` that stand in `result.json` beside the metrics, not among them."""


class Run:
    """One run, or one stage of a lifecycle.

    Only the main process (rank 0) writes and talks; on the others every method does nothing.

    Attributes:
        directory: where all outputs go.
        seed: the run's seed.
        name: what people call it.
        stage: the stage's name inside a lifecycle, None for a task run alone.
        summary: a task puts its final metrics here; `FACTS` among them are kept apart.
        stages: by stage, what a lifecycle records of it (key, seconds, whether reused) for `result.json`.
        data: name and digest of the data read, for `provenance.json`.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        seed: int = 0,
        name: str = "run",
        stage: str | None = None,
        tracker: Tracker | None = None,
        console: Console | None = None,
        elapsed_seconds: float = 0.0,
        is_main: bool | None = None,
        parent: Run | None = None,
    ) -> None:
        """Args beyond the attributes:
        tracker: told of every metric, table and summary; none when None.
        console: where people read; stderr when None.
        elapsed_seconds: how long earlier sessions of this run took: `seconds` in the metrics goes on from it.
        is_main: whether this process writes; rank 0 does when None.
        parent: the lifecycle's run; metrics and tables are mirrored to it.
        """
        self.directory, self.seed, self.name, self.stage = Path(directory), seed, name, stage
        self.summary: dict[str, Any] = {}
        self.stages: dict[str, dict[str, Any]] = {}
        self.data: dict[str, str] = {}
        self.is_main = runtime.is_main() if is_main is None else is_main
        self.tracker: Tracker = tracker or NoTracker()
        self._parent = parent
        self._display: Display = (
            parent._display if parent else Display(quiet=not self.is_main, console=console)
        )
        self._children: dict[str, Run] = {}
        self._began: float = parent._began if parent else time.monotonic() - elapsed_seconds
        self._file: IO[str] | None = None
        if self.is_main:
            self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def seconds(self) -> float:
        """Since the start of the run, earlier sessions included."""
        return time.monotonic() - self._began

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """One line of `metrics.jsonl`, on disk when this returns; also to the tracker.

        Floats are written so that they read back to the same bits. NaN and infinities, which JSON lacks, are
        the strings ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` (`llm.runs.directory.read_metrics` turns them
        back).
        """
        if not self.is_main:
            return
        values = files.plain(metrics)
        self._append({"stage": self.stage, "step": step, "seconds": round(self.seconds, 3), **values})
        self.tracker.log(values, step=step, stage=self.stage)

    def _append(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        if self._file is None:
            self._file = _open_to_append(self.directory / "metrics.jsonl")
        self._file.write(line)
        self._file.flush()
        if self._parent is not None:
            self._parent._append(record)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Writes `tables/<name>.json` with `columns` and `rows`; also to the tracker."""
        if not self.is_main:
            return
        table = {"columns": columns, "rows": rows}
        safe = re.sub(r"[^\w.-]+", "_", name)
        files.write_json(self.directory / "tables" / f"{safe}.json", table)
        if self._parent is not None:
            files.write_json(self._parent.directory / "tables" / str(self.stage) / f"{safe}.json", table)
        self.tracker.log_table(name, columns, rows, stage=self.stage)

    def progress(self, description: str, total: int | None, unit: str = "steps") -> Progress:
        """A context manager that shows work under way; tell it by ``advance(n, loss=...)``.

        A bar with rate and time left on a terminal, a line every ten seconds elsewhere, nothing on ranks > 0.
        """
        label = (
            f"{self.stage}: {description}" if self.stage and self.stage not in description else description
        )
        return Progress(self._display, label, total, unit)

    def say(self, text: str) -> None:
        """A line for people, on stderr, from the main process only."""
        self._display.say(text)

    def note_data(self, name: str, fingerprint: str) -> None:
        """Records the digest of data this run read, for `provenance.json`."""
        self.data[name] = fingerprint
        if self._parent is not None:
            self._parent.note_data(f"{self.stage}.{name}", fingerprint)

    def at_stage(self, stage: str, directory: str | Path, *, reused: bool = False) -> Run:
        """The run of one stage: its own directory and `metrics.jsonl`, mirrored here and to the tracker.

        Args:
            stage: its name.
            directory: where the stage's outputs go.
            reused: the stage is not run again: the metrics in `directory` are mirrored as they were logged,
                and nothing is written in it.
        """
        child = Run(
            directory,
            seed=self.seed,
            name=self.name,
            stage=stage,
            tracker=self.tracker,
            is_main=self.is_main,
            parent=self,
        )
        self._children[stage] = child
        if reused and self.is_main:
            self._mirror(stage, read_metrics(child.directory / "metrics.jsonl"))
        return child

    def rewind(self, step: int) -> None:
        """Drops the logged metrics of later steps than `step`: training goes on from there.

        A stage also replaces its lines in the lifecycle's `metrics.jsonl` by what it keeps, so that a stage
        resumed by a new run leaves the whole curve there.
        """
        if not self.is_main:
            return
        path = self.directory / "metrics.jsonl"
        self._drop(path, lambda record: int(record.get("step", 0)) > step)
        if self._parent is not None and self.stage is not None:
            self._parent._mirror(self.stage, read_metrics(path))

    def _drop(self, path: Path, unwanted: Any) -> None:
        self.close()
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line, record in parse_lines(lines) if not unwanted(record)]
            if len(kept) < len(lines):
                files.write_text(path, "".join(kept))

    def _mirror(self, stage: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Replaces this run's lines of `stage` by `records`."""
        self._drop(self.directory / "metrics.jsonl", lambda record: record.get("stage") == stage)
        for record in records:
            values = files.plain(record)
            self._append({**values, "stage": stage})
            metrics = {name: v for name, v in values.items() if name not in ("stage", "step", "seconds")}
            self.tracker.log(metrics, step=int(values.get("step", 0)), stage=stage)

    def result(self) -> dict[str, Any]:
        """What `result.json` says beside the status: metrics flat, or per stage in a lifecycle."""
        metrics = {name: value for name, value in self.summary.items() if name not in FACTS}
        for stage, child in self._children.items():
            metrics[stage] = child.result()["metrics"]
        return {
            "stages": {
                stage: {**_facts(child.summary), **self.stages.get(stage, {})}
                for stage, child in self._children.items()
            }
            | {stage: facts for stage, facts in self.stages.items() if stage not in self._children},
            "metrics": metrics,
            "n_params": self.summary.get("n_params"),
            "tokens": self.summary.get("tokens"),
            "wall_seconds": round(self.seconds, 3),
            "weights_sha256": self.summary.get("weights_sha256"),
        }

    def close(self) -> None:
        """Closes the metrics file; the next `log` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {name: summary[name] for name in FACTS if name in summary}


def _open_to_append(path: Path) -> IO[str]:
    """The metrics file, without the half line that a kill may have left at its end."""
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        whole = content[: content.rfind(b"\n") + 1]
        files.write_text(path, whole.decode("utf-8"))
    return path.open("a", encoding="utf-8")
