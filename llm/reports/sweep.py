"""A sweep's trials, ranked: a table (Markdown and CSV), a plot, and a page with both."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from llm import files
from llm.reports import html, plots, words
from llm.reports.compare import markdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Trial(TypedDict, total=False):
    """What a trial overrides (``{"model.n_layers": 4}`` or ``["model.n_layers=4"]``), and what came out."""

    overrides: Mapping[str, Any] | Sequence[str]
    objective: float | None
    status: str
    directory: str | Path


SHOWN_IN_A_TERMINAL = 10


class SweepFiles(NamedTuple):
    """Where a sweep's ranking was written, and its head for a terminal.

    `plot` is None when no trial has an objective.
    """

    markdown: Path
    csv: Path
    plot: Path | None
    page: Path
    terminal: str


def write(
    sweep_dir: str | Path,
    trials: Sequence[Trial],
    metric: str = "val_loss",
    direction: Literal["minimize", "maximize"] = "minimize",
) -> SweepFiles:
    """Writes `ranking.md`, `ranking.csv`, `ranking.png` and `report.html` in `sweep_dir`.

    Args:
        sweep_dir: the sweep's own directory.
        trials: in any order; one without a finite objective is ranked last, with its status.
        metric: what the objective is.
        direction: whether small or large is good.
    """
    folder = Path(sweep_dir)
    ranked = _ranked(trials, direction)
    axes = list(dict.fromkeys(name for trial in ranked for name in overrides_of(trial)))
    varying = [name for name in axes if len({str(overrides_of(trial).get(name)) for trial in ranked}) > 1]
    shown = _short(varying or axes)
    head = ["rank", *shown.values(), metric, "status", "directory"]
    rows = [
        [
            str(rank) if objective_of(trial) is not None else "–",
            *(str(overrides_of(trial).get(name, "–")) for name in shown),
            words.number(objective_of(trial), 5),
            str(trial.get("status", "")),
            str(trial.get("directory", "")),
        ]
        for rank, trial in enumerate(ranked, 1)
    ]
    files.write_text(folder / "ranking.md", markdown(head, rows))
    files.write_text(folder / "ranking.csv", _csv(ranked, axes, metric))
    finished = [trial for trial in ranked if objective_of(trial) is not None]
    drawn = None
    if finished and shown:
        with _picture(finished, shown, metric, plots.LIGHT) as picture:
            files.write_bytes(folder / "ranking.png", plots.png(picture))
        with _picture(finished, shown, metric, {}) as picture:
            drawn = plots.svg(picture, "ranking", f"{metric} along each axis of the sweep")
    title = f"Sweep {folder.name}"
    count = f"{len(finished)} of {len(ranked)} trials have a result"
    better = f"{metric}, {'smaller' if direction == 'minimize' else 'larger'} is better"
    body = [
        f'<header><h1>{escape(title)}</h1><p class="under">{escape(count)}; {escape(better)}</p></header>',
        _best(finished, shown, metric),
        html.section(
            f"{metric} along each axis",
            html.plot(drawn, "Each dot a trial; the line joins the best of each value."),
        ),
        html.section("Ranking", html.table(head, rows, numbers=[len(head) - 3], classes="wide")),
    ]
    page = html.write(folder / "report.html", title, body)
    plot = folder / "ranking.png" if drawn else None
    terminal = words.aligned([head, *rows[:SHOWN_IN_A_TERMINAL]])
    if more := len(rows) - SHOWN_IN_A_TERMINAL:
        terminal += f"\nand {more} more in {folder / 'ranking.md'}" if more > 0 else ""
    terminal += f"\nthe report: {page}"
    return SweepFiles(folder / "ranking.md", folder / "ranking.csv", plot, page, terminal)


def objective_of(trial: Trial) -> float | None:
    """A trial's objective, when it has one and it is a number."""
    value = trial.get("objective")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def overrides_of(trial: Trial) -> dict[str, Any]:
    """What a trial overrides, as a mapping."""
    given = trial.get("overrides") or {}
    if isinstance(given, Mapping):
        return dict(given)
    return {name.lstrip("+~"): value for name, _, value in (text.partition("=") for text in given)}


def _ranked(trials: Sequence[Trial], direction: str) -> list[Trial]:
    sign = 1 if direction == "minimize" else -1

    def place(trial: Trial) -> tuple[bool, float]:
        value = objective_of(trial)
        return (value is None, sign * (value or 0.0))

    return sorted(trials, key=place)


def _short(names: Sequence[str]) -> dict[str, str]:
    """The last part of each dotted name, where that tells them apart."""
    last = [name.rsplit(".", 1)[-1] for name in names]
    return {name: short if last.count(short) == 1 else name for name, short in zip(names, last, strict=True)}


def _csv(ranked: Sequence[Trial], axes: Sequence[str], metric: str) -> str:
    stream = io.StringIO()
    out = csv.writer(stream, lineterminator="\n")
    out.writerow(["rank", *axes, metric, "status", "directory"])
    for rank, trial in enumerate(ranked, 1):
        value, overrides = objective_of(trial), overrides_of(trial)
        cells = [overrides.get(name, "") for name in axes]
        first = rank if value is not None else ""
        out.writerow(
            [
                first,
                *cells,
                "" if value is None else repr(value),
                trial.get("status", ""),
                trial.get("directory", ""),
            ]
        )
    return stream.getvalue()


def _best(finished: Sequence[Trial], shown: Mapping[str, str], metric: str) -> str | None:
    if not finished:
        return '<div class="verdict">No trial has a result yet.</div>'
    best = finished[0]
    where = ", ".join(f"{short} {overrides_of(best).get(name, '–')}" for name, short in shown.items())
    text = f"Best: {where or best.get('directory', '')}, with {metric} {words.number(objective_of(best), 5)}."
    if len(finished) > 1:
        text += f" The worst of {len(finished)} reached {words.number(objective_of(finished[-1]), 5)}."
    return f'<div class="verdict">{escape(text)}</div>'


@contextmanager
def _picture(
    finished: Sequence[Trial], shown: Mapping[str, str], metric: str, colours: Mapping[str, str]
) -> Iterator[Figure]:
    """One panel an axis: every trial a dot, the best marked, the best of each value joined by a line."""
    columns = min(3, len(shown))
    lines = math.ceil(len(shown) / columns)
    with plots.figure(3.1 * columns + 0.4, 2.6 * lines, colours) as (drawn, first):
        first.remove()
        panels = drawn.subplots(lines, columns, sharey=True, squeeze=False)
        for index, (name, short) in enumerate(shown.items()):
            panel = panels[index // columns][index % columns]
            points = [(str(overrides_of(t).get(name, "–")), objective_of(t) or 0.0) for t in finished]
            _panel(panel, points, colours)
            panel.set_xlabel(plots.one_line(short))
            if index % columns == 0:
                panel.set_ylabel(plots.one_line(metric))
        for index in range(len(shown), lines * columns):
            panels[index // columns][index % columns].set_visible(False)
        yield drawn


def _panel(axes: Axes, points: Sequence[tuple[str, float]], colours: Mapping[str, str]) -> None:
    """One axis of the sweep; `points` are best first."""
    values = sorted({value for value, _ in points}, key=_natural)
    places = {value: place for place, value in enumerate(values)}
    best = [next(objective for value, objective in points if value == at) for at in values]
    colour, mark = (colours.get(name, name) for name in (plots.FIRST, plots.SECOND))
    axes.plot(range(len(values)), best, color=colour, linewidth=1.4, alpha=0.6)
    places_of = [places[value] for value, _ in points]
    axes.plot(places_of, [objective for _, objective in points], "o", color=colour, alpha=0.55, markersize=5)
    axes.plot(places_of[:1], [points[0][1]], "o", color=mark, markersize=8)
    axes.set_xticks(range(len(values)), [plots.one_line(value, 12) for value in values])
    axes.margins(x=0.15, y=0.12)


def _natural(text: str) -> tuple[int, float, str]:
    """Numbers in their order, then words in theirs."""
    number = re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", text, re.IGNORECASE)
    return (0, float(text), "") if number else (1, 0.0, text)
