"""The plot of learned mixtures: each domain's weight over the steps, its average and where it began."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm.reports import plots

COLOURS = (plots.FIRST, plots.SECOND, plots.THIRD, plots.INK, plots.MUTED)
STYLES = ("-", "--", ":", "-.")


def draw(
    history: Mapping[str, Sequence[float]], average: Mapping[str, float], baseline: Mapping[str, float]
) -> bytes:
    """A PNG: a line a domain, its average at the right edge, its share in the baseline at the left.

    Args:
        history: weights by domain, one a step.
        average: by domain, what was learned.
        baseline: by domain, what the reference was trained on.
    """
    n_steps = max(map(len, history.values()))
    with plots.figure(7.4, 3.4, plots.LIGHT) as (drawn, axes):
        for number, name in enumerate(sorted(history, key=lambda one: -average[one])):
            colour = plots.LIGHT[COLOURS[number % len(COLOURS)]]
            style = STYLES[number // len(COLOURS) % len(STYLES)]
            label = f"{name}  {baseline[name]:.1%} → {average[name]:.1%}"
            steps = range(1, len(history[name]) + 1)
            axes.plot(steps, history[name], style, color=colour, linewidth=1.4, label=label)
            axes.plot([0], [baseline[name]], "o", color=colour, markersize=4, clip_on=False)
            axes.plot([n_steps], [average[name]], "D", color=colour, markersize=4, clip_on=False)
        axes.set_xlim(0, n_steps)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("step  (circle: baseline, diamond: average over the steps)")
        axes.set_ylabel("weight")
        drawn.legend(loc="outside right upper")
        return plots.png(drawn)
