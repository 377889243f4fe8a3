"""Two runs beside each other: equal to the last bit or not, and several in one table and plot."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from llm import files
from llm.reports import html, plots, words
from llm.runs.directory import RunRecord, flat

OF_THE_MACHINE = frozenset(
    {
        "seconds",
        "wall_seconds",
        "step_seconds",
        "data_seconds",
        "tokens_per_second",
        "examples_per_second",
        "samples_per_second",
        "documents_per_second",
        "mfu",
        "memory_bytes",
        "joules",
        "energy_joules",
    }
)
"""Metrics that say how fast and on what, not what was computed: no two runs agree on them."""


@dataclass(frozen=True)
class Verdict:
    """Whether two runs are equal to the last bit; if not, where they first part and by how much.

    `saved` and `new` are None where that run has no value there. `compared` counts the values looked at.
    """

    equal: bool
    compared: int
    n_steps: int = 0
    stage: str | None = None
    step: int | None = None
    metric: str | None = None
    saved: object = None
    new: object = None

    @property
    def _is_empty(self) -> bool:
        return self.compared == 0 and self.saved is None and self.new is None

    @property
    def difference(self) -> float | None:
        """New minus saved, where both are numbers."""
        if isinstance(self.saved, int | float) and isinstance(self.new, int | float):
            return float(self.new) - float(self.saved)
        return None

    def __str__(self) -> str:
        if self.equal:
            where = (
                f"at every one of {self.n_steps:,} logged steps" if self.n_steps else "in the final results"
            )
            return f"reproduced: bitwise equal {where} ({self.compared:,} values)"
        if self._is_empty:
            return "not reproduced: neither run logged anything that could be compared"
        place = f"step {self.step}" if self.step is not None else "the final results"
        stage = f" of {self.stage}" if self.stage else ""
        if self.metric is None:
            which = "the saved run" if self.new is None else "the new run"
            return f"not reproduced: {place}{stage} is only in {which}"
        if self.difference is None:
            return (
                f"not reproduced: first difference at {place}{stage}: "
                f"{self.metric} was {_exact(self.saved)}, is {_exact(self.new)}"
            )
        relative = ""
        if isinstance(self.saved, int | float) and self.saved and math.isfinite(self.difference):
            relative = f", {abs(self.difference / self.saved):.2g} of it"
        return (
            f"not reproduced: first difference at {place}{stage}: {self.metric} was {_exact(self.saved)}, "
            f"is {_exact(self.new)} (difference {self.difference:+.3g}{relative})"
        )


def _exact(value: object) -> str:
    return "absent" if value is None else repr(value)


def bitwise(
    saved_metrics: Iterable[Mapping[str, Any]],
    new_metrics: Iterable[Mapping[str, Any]],
    *,
    ignore: Iterable[str] = OF_THE_MACHINE,
) -> Verdict:
    """Compares the lines of two `metrics.jsonl`, in the saved run's order.

    Lines of the same stage and step are one. Floats are equal when their bits are: 0.0 is not -0.0, and NaN
    is NaN. Two runs that logged nothing comparable are not called equal.

    Args:
        saved_metrics: of the run to be reproduced.
        new_metrics: of the run that should be its equal.
        ignore: metrics left out.
    """
    left_out = {*ignore, "stage", "step"}
    saved, new = _by_step(saved_metrics, left_out), _by_step(new_metrics, left_out)
    compared = 0
    for place in [*saved, *(place for place in new if place not in saved)]:
        stage, step = place
        if place not in saved or place not in new:
            there = (place in saved or None, place in new or None)
            return Verdict(False, compared, stage=stage, step=step, saved=there[0], new=there[1])
        before, after = saved[place], new[place]
        for metric in [*before, *(name for name in after if name not in before)]:
            compared += 1
            if _bits(before.get(metric)) != _bits(after.get(metric)):
                then, now = before.get(metric), after.get(metric)
                return Verdict(False, compared, 0, stage, step, metric, then, now)
    return Verdict(compared > 0, compared, n_steps=len(saved))


def bitwise_runs(saved: RunRecord, new: RunRecord) -> Verdict:
    """`bitwise` of two whole runs: every logged step, then the final metrics, then the weights' sha256."""
    logged = bitwise(saved.metrics, new.metrics)
    if not logged.equal and not logged._is_empty:
        return logged
    compared = logged.compared
    before, after = _finals(saved.result), _finals(new.result)
    for name in [*before, *(name for name in after if name not in before)]:
        compared += 1
        if _bits(before.get(name)) != _bits(after.get(name)):
            return Verdict(False, compared, metric=name, saved=before.get(name), new=after.get(name))
    return Verdict(compared > 0, compared, n_steps=logged.n_steps)


def _finals(result: Mapping[str, Any]) -> dict[str, Any]:
    finals = {
        name: files.number(value)
        for name, value in flat(result.get("metrics") or {}).items()
        if name.rsplit(".", 1)[-1] not in OF_THE_MACHINE
    }
    if result.get("weights_sha256"):
        finals["weights_sha256"] = result["weights_sha256"]
    for stage, facts in (result.get("stages") or {}).items():
        if isinstance(facts, Mapping) and facts.get("weights_sha256"):
            finals[f"{stage}.weights_sha256"] = facts["weights_sha256"]
    return finals


def _by_step(
    metrics: Iterable[Mapping[str, Any]], left_out: set[str]
) -> dict[tuple[str | None, int | None], dict[str, Any]]:
    found: dict[tuple[str | None, int | None], dict[str, Any]] = {}
    for line in metrics:
        values = {name: files.number(value) for name, value in line.items() if name not in left_out}
        if values:
            found.setdefault((line.get("stage"), line.get("step")), {}).update(values)
    return found


def _bits(value: object) -> object:
    """Equal for values that are the same to the last bit; every NaN is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if not isinstance(value, list) else tuple(map(_bits, value))
    if isinstance(value, int) and abs(value) > 2**53:
        return value
    if math.isnan(value):
        return "NaN"
    return struct.pack(">d", value)


def runs(records: Sequence[RunRecord], folder: Path) -> Path:
    """Writes `comparison.md` and `comparison.html` in `folder`: several runs in one table and one plot.

    The table has the final metrics of each run, and the config values in which they differ.

    Returns:
        The page.
    """
    labels = _labels(records)
    configs = [flat(record.config) for record in records]
    differing = sorted(
        {name for config in configs for name in config if len({repr(c.get(name)) for c in configs}) > 1}
        - {"name", "run_dir"}
    )
    metrics = [flat(record.result.get("metrics") or {}) for record in records]
    names = list(dict.fromkeys(name for found in metrics for name in found))
    head = ["run", "status", *names, *differing]
    rows = [
        [
            label,
            record.status,
            *(words.number(files.number(found.get(name))) for name in names),
            *(str(config.get(name, "–")) for name in differing),
        ]
        for label, record, found, config in zip(labels, records, metrics, configs, strict=True)
    ]
    files.write_text(folder / "comparison.md", markdown(head, rows))
    figures = []
    stages = list(dict.fromkeys(line.get("stage") for record in records for line in record.metrics))
    for number, stage in enumerate(stages):
        lines = [[line for line in record.metrics if line.get("stage") == stage] for record in records]
        drawn = plots.overlay(dict(zip(labels, lines, strict=True)), f"overlay-{number}")
        if drawn:
            title = f"<h3>{escape(str(stage))}</h3>" if stage else ""
            figures.append(f"<div>{title}{html.plot(drawn)}</div>")
    body = [
        f"<header><h1>{len(records)} runs compared</h1></header>",
        html.section("Results", html.table(head, rows, numbers=range(2, 2 + len(names)))),
        html.section("Validation loss", *figures),
        html.section(
            "Where they are", html.facts(dict(zip(labels, (r.directory for r in records), strict=True)))
        ),
    ]
    return html.write(folder / "comparison.html", f"{len(records)} runs compared", body)


def _labels(records: Sequence[RunRecord]) -> list[str]:
    """The directories' names, with their parents' where that alone is not unique."""
    short = [record.directory.name for record in records]
    if len(set(short)) == len(short):
        return short
    return [f"{record.directory.parent.name}/{record.directory.name}" for record in records]


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown, its cells escaped."""

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"

    return line(head) + line(["---"] * len(head)) + "".join(line(row) for row in rows)
