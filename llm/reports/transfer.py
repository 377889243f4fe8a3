"""Does the best learning rate stay put while a model gets wider? A sweep over both, as a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from llm import files
from llm.reports import plots, sweep
from llm.reports.sweep import SweepFiles, Trial

RATE, WIDTH, KIND = "optimizer.lr", "model.d_model", "model/parametrization"

Curves = Mapping[str, Mapping[int, Mapping[float, float]]]
"""The objective by parametrization, width and learning rate."""


def write(
    sweep_dir: str | Path,
    trials: Sequence[Trial],
    metric: str = "val_loss",
    direction: Literal["minimize", "maximize"] = "minimize",
) -> SweepFiles:
    """What `llm.reports.sweep.write` writes, and `transfer.png` with the best rate of each width.

    Args:
        sweep_dir: the sweep's own directory.
        trials: in any order; those that vary `optimizer.lr` and `model.d_model` are drawn.
        metric: what the objective is.
        direction: whether small or large is good.
    """
    written = sweep.write(sweep_dir, trials, metric, direction)
    found = curves(trials)
    if not found:
        return written
    picture = Path(sweep_dir) / "transfer.png"
    files.write_bytes(picture, draw(found, metric, direction))
    lines = [
        f"{kind}: best learning rate "
        + ", ".join(f"{optimum(rates, direction):.2g} at width {width}" for width, rates in widths.items())
        + f"; that of the narrowest costs the widest {cost(widths, direction):.3f}"
        for kind, widths in found.items()
    ]
    return written._replace(terminal="\n".join([written.terminal, *lines, f"the plot: {picture}"]))


def curves(trials: Sequence[Trial]) -> Curves:
    """The finished trials, ordered."""
    found: dict[str, dict[int, dict[float, float]]] = {}
    for trial in trials:
        said: dict[str, Any] = sweep.overrides_of(trial)
        value = sweep.objective_of(trial)
        if value is not None and RATE in said and WIDTH in said:
            widths = found.setdefault(str(said.get(KIND, "trials")), {})
            widths.setdefault(int(said[WIDTH]), {})[float(said[RATE])] = value
    return {
        kind: {width: dict(sorted(rates.items())) for width, rates in sorted(widths.items())}
        for kind, widths in found.items()
    }


def best(found: Curves, direction: str = "minimize") -> dict[str, dict[int, float]]:
    """The best learning rate of each width, by parametrization."""
    choose = min if direction == "minimize" else max
    return {
        kind: {width: choose(rates, key=rates.__getitem__) for width, rates in widths.items()}
        for kind, widths in found.items()
    }


def optimum(rates: Mapping[float, float], direction: str = "minimize") -> float:
    """Where a parabola through the best rate and its neighbours, over the log of the rate, has its end.

    The best rate itself when it is the first or the last of those tried: the optimum may lie beyond.
    """
    ordered = sorted(rates)
    place = ordered.index(best({"": {0: rates}}, direction)[""][0])
    if not 0 < place < len(ordered) - 1:
        return ordered[place]
    x = [math.log(rate) for rate in ordered[place - 1 : place + 2]]
    left, right = ((rates[ordered[place]] - rates[ordered[n]]) / (x[1] - x[n - place + 1]) for n in
                   (place - 1, place + 1))  # fmt: skip
    bend = (right - left) / (x[2] - x[0])
    return math.exp((x[0] + x[1]) / 2 - left / (2 * bend)) if bend else ordered[place]


def cost(widths: Mapping[int, Mapping[float, float]], direction: str = "minimize") -> float:
    """What the widest model loses by the narrowest one's best learning rate; NaN where it was not tried."""
    rates = best({"": widths}, direction)[""]
    widest = widths[max(widths)]
    return abs(widest.get(rates[min(widths)], math.nan) - widest[rates[max(widths)]])


def draw(found: Curves, metric: str, direction: str = "minimize") -> bytes:
    """A panel for each parametrization: the objective over the rate, a line a width, the best ones marked."""
    blues = ("#9dbdf2", "#5b8fe6", "#2866d8", "#1a479b", "#0f2c63")
    ink, muted, mark = (plots.LIGHT[name] for name in (plots.INK, plots.MUTED, plots.SECOND))
    bests = best(found, direction)
    values = sorted(
        value for widths in found.values() for rates in widths.values() for value in rates.values()
    )
    low, middle = values[0], values[len(values) // 2]
    with plots.figure(3.7 * len(found) + 0.3, 3.3, plots.LIGHT) as (drawn, first):
        first.remove()
        panels = drawn.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for panel, (kind, widths) in zip(panels, found.items(), strict=True):
            for number, (width, rates) in enumerate(widths.items()):
                shade = blues[min(number * 2 if len(widths) < 4 else number, len(blues) - 1)]
                x, y = list(rates), list(rates.values())
                panel.plot(x, y, color=shade, linewidth=1.7, marker="o", markersize=3, label=f"width {width}")
                at = bests[kind][width]
                panel.plot([at], [rates[at]], "o", color=mark, markersize=7.5, zorder=5,
                           label="best rate" if number == len(widths) - 1 else None)  # fmt: skip
            tops = ", ".join(f"{optimum(rates, direction):.2g}" for rates in widths.values())
            tops = ", ".join(f"{optimum(rates, direction):.2g}" for rates in widths.values())
            says = f"optimum at {tops}\nthe narrowest's costs the widest {cost(widths, direction):.2f}"
            panel.set_title(f"{plots.one_line(kind)}: {says}", loc="left", fontsize=9, color=ink)
            panel.set_xscale("log", base=2)
            ticks = sorted({rate for rates in widths.values() for rate in rates})
            panel.set_xticks(ticks, [f"{rate:g}" for rate in ticks], fontsize=7.5)
            panel.minorticks_off()
            panel.set_xlabel("learning rate", color=muted)
        if direction == "minimize":  # rates that are far too high would press the rest flat
            panels[0].set_ylim(low - 0.06 * (middle - low), low + 3.2 * (middle - low))
        panels[0].set_ylabel(plots.one_line(metric))
        panels[0].legend(loc="upper center", bbox_to_anchor=(0.56, 1.0))
        return plots.png(drawn)
