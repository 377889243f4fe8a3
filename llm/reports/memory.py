"""The memory of a planned run as one bar: what it is for, beside what a device has."""

from __future__ import annotations

from collections.abc import Mapping

from llm.reports.plots import FIRST, INK, LIGHT, MUTED, SECOND, THIRD, figure, png

GIB = 2**30
COLOURS = (FIRST, THIRD, SECOND, MUTED)


def drawn(parts: Mapping[str, int], limits: Mapping[str, float]) -> bytes:
    """A PNG.

    Args:
        parts: bytes by what they are for.
        limits: bytes by whose they are, drawn as lines.
    """
    held = {name: value for name, value in parts.items() if value}
    unit, scale = ("GiB", GIB) if max(sum(held.values()), 1) >= GIB / 4 else ("MiB", 2**20)
    with figure(7.4, 2.0, LIGHT) as (drawing, axes):
        start = 0.0
        for number, (name, value) in enumerate(held.items()):
            colour = LIGHT[COLOURS[number % len(COLOURS)]]
            alpha = 0.9 if number < len(COLOURS) else 0.45
            axes.barh([0], [value / scale], left=start, color=colour, alpha=alpha, height=0.5,
                      label=f"{name}  {value / scale:,.2f}")  # fmt: skip
            start += value / scale
        for name, value in limits.items():
            if value / scale <= 6 * start:  # one far away would make the bar a line
                axes.axvline(value / scale, color=LIGHT[INK], linewidth=1.2, linestyle=(0, (4, 3)))
                axes.annotate(name, (value / scale, 0.42), xytext=(-4, 0), textcoords="offset points",
                              ha="right", color=LIGHT[MUTED], fontsize=8)  # fmt: skip
        axes.set_ylim(-0.35, 0.55)
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{unit} on one device, {start:,.2f} at the most")
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.5), ncols=4)
        return png(drawing)
