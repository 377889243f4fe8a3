"""Plots as inline SVG whose colours are the page's CSS variables: they follow light, dark and print."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from llm.reports import words
from llm.reports.facts import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib knows no CSS: it draws in these stand-ins, which `svg` replaces by the variables of the page.
INK, MUTED, LINE, FIRST, SECOND, THIRD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", FIRST: "first", SECOND: "second", THIRD: "third"}
LIGHT = {
    INK: "#1b2330",
    MUTED: "#667085",
    LINE: "#e3e6eb",
    FIRST: "#2866d8",
    SECOND: "#d4700a",
    THIRD: "#0b8f6c",
}
"""What the stand-ins are in a PNG, which knows no CSS either."""

_MAX_POINTS = 400


@contextmanager
def figure(
    width: float, height: float, colours: Mapping[str, str] | None = None
) -> Iterator[tuple[Figure, Axes]]:
    """A bare figure of `width` x `height` inches in the page's style; `colours` is `LIGHT` for a PNG."""
    import matplotlib  # half a second: only when something is drawn
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ink, muted, line = ((colours or {}).get(colour, colour) for colour in (INK, MUTED, LINE))
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "font.size": 9,
        "text.color": ink,
        "axes.edgecolor": line,
        "axes.labelcolor": muted,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "axes.grid": True,
        "grid.color": line,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }
    with matplotlib.rc_context(style):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn, drawn.add_subplot()


def svg(drawn: Figure, name: str, label: str) -> str:
    """The figure as an SVG element; `name` keeps its ids apart from those of other figures on the page."""
    stream = io.StringIO()
    drawn.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font: \1 var(--sans)", text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    size = re.search(r'viewBox="[^"]+"', text)
    assert size is not None
    head = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {size[0]} role="img" aria-label="{escape(label)}">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)


def png(drawn: Figure) -> bytes:
    """The figure, drawn in `LIGHT`, as a PNG at 144 dots an inch."""
    stream = io.BytesIO()
    drawn.savefig(stream, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def series(metrics: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Steps and finite values of one metric."""
    points = [
        (float(line["step"]), float(line[name]))
        for line in metrics
        if isinstance(line.get(name), int | float) and isinstance(line.get("step"), int | float)
    ]
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]


def _thinned(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """Means of equal bins when there are more points than pixels to see them."""
    if len(steps) <= _MAX_POINTS:
        return steps, values
    size = math.ceil(len(steps) / _MAX_POINTS)
    bins = range(0, len(steps), size)
    mean = [sum(values[i : i + size]) / len(values[i : i + size]) for i in bins]
    return [sum(steps[i : i + size]) / len(steps[i : i + size]) for i in bins], mean


def losses(
    metrics: Sequence[Mapping[str, Any]],
    name: str,
    *,
    wide: bool = False,
    published: tuple[float, float] | None = None,
) -> str | None:
    """Training and validation loss over steps; None when neither was logged.

    Args:
        metrics: the lines of one stage.
        name: of the figure.
        wide: as wide as the page.
        published: a published validation loss and its tolerance, drawn as a band.
    """
    train, held_out = series(metrics, "loss"), series(metrics, "val_loss")
    if not train[0] and not held_out[0]:
        return None
    with figure(7.4 if wide else 3.7, 3.1 if wide else 2.5) as (drawn, axes):
        if train[0]:
            axes.plot(*_thinned(*train), color=FIRST, linewidth=1, alpha=0.65, label="training")
        if held_out[0]:
            marker = "o" if len(held_out[0]) <= 60 else ""
            axes.plot(
                *held_out, color=SECOND, linewidth=1.8, marker=marker, markersize=3.2, label="validation"
            )
            best = min(held_out[1])
            axes.annotate(
                f"{held_out[1][-1]:.3f}",
                (held_out[0][-1], held_out[1][-1]),
                xytext=(0, 7),
                textcoords="offset points",
                ha="right",
                color=SECOND,
                fontweight="bold",
            )
            # The first points of training would squeeze everything else into the lowest pixels.
            top = max([held_out[1][0], *train[1][len(train[1]) // 50 :]])
            low = min([best, *train[1]])
            axes.set_ylim(low - 0.06 * (top - low or 1), top + 0.06 * (top - low or 1))
        if published:
            value, tolerance = published
            axes.axhspan(value - tolerance, value + tolerance, color=THIRD, alpha=0.18, linewidth=0)
            axes.axhline(
                value, color=THIRD, linewidth=1.2, linestyle=(0, (4, 3)), label=f"published {value:g}"
            )
        axes.set_xlabel("step")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel("loss" + (" (nats)" if wide else ""))
        axes.legend(loc="upper right")
        return svg(drawn, name, "training and validation loss over steps")


def curve(metrics: Sequence[Mapping[str, Any]], metric: str, name: str) -> str | None:
    """One metric over steps, small; None when it was not logged."""
    steps, values = series(metrics, metric)
    if len(steps) < 2:
        return None
    with figure(2.5, 1.6) as (drawn, axes):
        axes.plot(*_thinned(steps, values), color=FIRST, linewidth=1.2)
        axes.set_title(metric, loc="left", fontsize=8.5, color=MUTED)
        axes.margins(y=0.1)
        return svg(drawn, name, f"{metric} over steps")


def intervals(
    scores: Sequence[Score], name: str, *, marks: Mapping[str, float], label: str, is_percent: bool = False
) -> str | None:
    """Each score as a dot with its interval, one row each; `marks` are vertical lines with a word."""
    scores = [score for score in scores if "value" in score]
    if not scores:
        return None
    scale = 100.0 if is_percent else 1.0
    with figure(5.2, 0.85 + 0.38 * len(scores)) as (drawn, axes):
        for row, score in enumerate(reversed(scores)):
            value = scale * score["value"]
            low, high = scale * score.get("low", score["value"]), scale * score.get("high", score["value"])
            axes.plot([low, high], [row, row], color=FIRST, linewidth=5, alpha=0.3, solid_capstyle="round")
            axes.plot([value], [row], "o", color=FIRST, markersize=7)
            text = f"{value:.1f} %" if is_percent else f"{value:+.3f}"
            axes.annotate(
                text, (value, row), xytext=(0, 8), textcoords="offset points", ha="center", fontweight="bold"
            )
        colours = [SECOND, THIRD, MUTED]
        for colour, (word, at) in zip(colours, marks.items(), strict=False):
            axes.axvline(scale * at, color=colour, linewidth=1.3, linestyle=(0, (4, 3)), label=word)
        axes.set_yticks(range(len(scores)), [one_line(s.get("name", "model")) for s in reversed(scores)])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
        axes.set_ylim(-0.6, len(scores) - 0.25)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
        axes.set_xlabel(label)
        if marks:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(marks))
        return svg(drawn, name, label)


def bars(rows: Sequence[tuple[str, float, str]], name: str, label: str, *, colour: str = FIRST) -> str | None:
    """Horizontal bars from the top: name, length, and the words at its end."""
    if not rows:
        return None
    with figure(5.2, 0.3 + 0.3 * len(rows)) as (drawn, axes):
        places = range(len(rows) - 1, -1, -1)
        axes.barh(places, [length for _, length, _ in rows], color=colour, alpha=0.8, height=0.62)
        longest = max(length for _, length, _ in rows) or 1.0
        for place, (_, length, text) in zip(places, rows, strict=True):
            axes.annotate(
                one_line(text),
                (length, place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
            )
        axes.set_xlim(0, longest * 1.32)
        axes.set_yticks(places, [one_line(word) for word, _, _ in rows])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        return svg(drawn, name, label)


def paired_bars(
    rows: Sequence[tuple[str, float, float]], name: str, label: str, sides: tuple[str, str]
) -> str | None:
    """Two shares for each name, one under the other, in percent."""
    if not rows:
        return None
    with figure(5.2, 0.7 + 0.42 * len(rows)) as (drawn, axes):
        places = [float(place) for place in range(len(rows) - 1, -1, -1)]
        for side, offset, colour in ((0, 0.19, MUTED), (1, -0.19, FIRST)):
            lengths = [100 * row[1 + side] for row in rows]
            axes.barh([p + offset for p in places], lengths, color=colour, alpha=0.8, height=0.36,
                      label=sides[side])  # fmt: skip
            for place, length in zip(places, lengths, strict=True):
                axes.annotate(f"{length:.1f} %", (length, place + offset), xytext=(4, 0),
                              textcoords="offset points", va="center", color=MUTED, fontsize=7.5)  # fmt: skip
        axes.set_xlim(0, 125 * max(max(row[1:]) for row in rows) or 1)
        axes.set_yticks(places, [one_line(word) for word, _, _ in rows])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return svg(drawn, name, label)


def one_line(text: object, limit: int = 44) -> str:
    """For a label: no formulas (matplotlib reads $...$ as one), no new lines, not too long."""
    line = " ".join(str(text).split()).replace("$", r"\$")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def wall_time(rows: Sequence[tuple[str, float]], name: str) -> str | None:
    """Seconds of each stage."""
    return bars([(stage, took, words.seconds(took)) for stage, took in rows], name, "wall time of each stage")


_MANY = (FIRST, SECOND, THIRD, MUTED, INK)


def overlay(metrics: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> str | None:
    """Validation loss of several runs in one plot (training loss where there is none); or None."""
    found = {}
    for label, lines in metrics.items():
        points = series(lines, "val_loss")
        points = points if points[0] else _thinned(*series(lines, "loss"))
        if points[0]:
            found[label] = points
    if not found:
        return None
    with figure(7.4, 3.1) as (drawn, axes):
        for number, (label, points) in enumerate(found.items()):
            dashes = ["-", "--", ":", "-."][number // len(_MANY) % 4]
            colour = _MANY[number % len(_MANY)]
            axes.plot(*points, color=colour, linestyle=dashes, linewidth=1.6, label=one_line(label))
        axes.set_xlabel("step")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel("loss (nats)")
        axes.legend(loc="upper right")
        return svg(drawn, name, "loss of each run over steps")
