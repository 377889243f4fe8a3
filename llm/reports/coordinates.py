"""The plot of a coordinate check: size of each layer's activations over the width of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llm.reports import plots
from llm.training.coordinate_check import Size, steepest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "embedding": plots.MUTED,
    "attention": plots.FIRST,
    "feed_forward": plots.SECOND,
    "stream": plots.THIRD,
    "logits": plots.INK,
}


def draw(found: Mapping[str, Sequence[Size]], n_steps: int, tolerance: float) -> bytes:
    """A PNG: a row for each parametrization, the sizes before training and after `n_steps` steps.

    Args:
        found: measurements by parametrization.
        n_steps: the step that is judged.
        tolerance: largest absolute slope that counts as flat.
    """
    with plots.figure(7.4, 0.5 + 2.9 * len(found), plots.LIGHT) as (drawn, first):
        first.remove()
        panels = drawn.subplots(len(found), 2, sharex=True, sharey=True, squeeze=False)
        for row, (kind, sizes) in zip(panels, found.items(), strict=True):
            for panel, step in zip(row, (0, n_steps), strict=True):
                _panel(panel, sizes, step)
                when = "before training" if step == 0 else f"after {step} steps"
                panel.set_title(f"{kind}, {when}", loc="left", fontsize=9)
                layer, slope = steepest(sizes, step)
                says = f"steepest: {layer.replace('_', '-')}, width$^{{{slope:+.2f}}}$"
                verdict = plots.THIRD if abs(slope) <= tolerance else plots.SECOND
                colour = plots.LIGHT[verdict if step else plots.MUTED]
                panel.annotate(
                    says, (0.02, 0.97), xycoords="axes fraction", va="top", fontsize=8, color=colour
                )
            row[0].set_ylabel("mean absolute activation")
        for panel in panels[-1]:
            panel.set_xlabel("width (d_model)")
        handles, labels = panels[0][0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return plots.png(drawn)


def _panel(axes: Axes, sizes: Sequence[Size], step: int) -> None:
    """One line a layer through the means of the logs, deeper layers darker; seeds as faint dots."""
    at_step = [one for one in sizes if one.step == step]
    widths = sorted({one.width for one in at_step})
    layers = list(dict.fromkeys(one.layer for one in at_step))
    depth = 1 + max((int(layer.split()[1]) for layer in layers if " " in layer), default=0)
    for layer in layers:
        kind, _, number = layer.partition(" ")
        colour = plots.LIGHT[COLOURS.get(kind, plots.MUTED)]
        alpha = 0.4 + 0.6 * (int(number) + 1) / depth if number else 1.0
        mine = [one for one in at_step if one.layer == layer]
        means = [np.exp(np.mean([np.log(one.size) for one in mine if one.width == w])) for w in widths]
        label = kind.replace("_", "-") if number in ("", str(depth - 1)) else None
        axes.plot(
            widths, means, color=colour, alpha=alpha, linewidth=1.6, marker="o", markersize=3, label=label
        )
        axes.plot(
            [one.width for one in mine],
            [one.size for one in mine],
            ".",
            color=colour,
            alpha=0.25,
            markersize=3,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.minorticks_off()
