"""The memory of a planned run as one bar: what it is for, beside what a device has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.reports.plots import FIRST, INK, LIGHT, MUTED, SECOND, THIRD, figure, png

SHADES = {
    "parameters": (FIRST, 0.9),
    "gathered": (FIRST, 0.45),
    "gradients": (THIRD, 0.9),
    "optimizer": (SECOND, 0.9),
    "buffers": (SECOND, 0.45),
    "activations": (MUTED, 0.55),
}


def drawn(parts: Mapping[str, int], capacity: float, device: str) -> bytes:
    """A PNG.

    Args:
        parts: bytes by what they are for.
        capacity: bytes that `device` has, drawn as a line where it does not dwarf the rest.
        device: its name.
    """
    total = max(sum(parts.values()), 1)
    scale, unit = (2**30, "GiB") if total >= 2**28 else (2**20, "MiB")
    with figure(7.4, 1.9, LIGHT) as (drawing, axes):
        start = 0.0
        for name, value in parts.items():
            colour, alpha = SHADES.get(name, (INK, 0.5))
            shown = f"{name} {value / scale:,.2f}" if value >= total / 1000 else None
            length = value / scale
            axes.barh([0], [length], left=start, color=LIGHT[colour], alpha=alpha, height=0.5, label=shown)
            start += length
        limit = capacity / scale
        if limit <= 4 * start:
            axes.axvline(limit, color=LIGHT[INK], linewidth=1.2, linestyle=(0, (4, 3)))
            side, offset = ("right", -4) if limit > start / 3 else ("left", 4)
            place: Any = {"xytext": (offset, 0), "textcoords": "offset points", "ha": side}
            axes.annotate(device, (limit, 0.4), color=LIGHT[MUTED], fontsize=8, **place)
        axes.set_ylim(-0.35, 0.55)
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{unit} on one device; {start:,.2f} at the most")
        drawing.legend(loc="outside upper left", ncols=6, handlelength=1.2, columnspacing=1.2)
        return png(drawing)
