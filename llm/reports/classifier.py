"""Two pictures of a classifier: what a threshold costs, and whether its scores are what they say."""

from __future__ import annotations

from collections.abc import Sequence

from llm.classifiers.measuring import Bin, Curve
from llm.reports.plots import FIRST, INK, LIGHT, MUTED, SECOND, figure, png


def precision_recall_png(development: Curve, test: Curve, threshold: float) -> bytes:
    """Precision over recall on both parts that were not learned from, with the threshold's place on each."""
    with figure(4.6, 3.2, LIGHT) as (drawn, axes):
        for curve, colour, name in ((development, SECOND, "development"), (test, FIRST, "test")):
            shown = LIGHT[colour]
            axes.plot(curve.recall, curve.precision, color=shown, linewidth=1.4, label=name)
            reached = curve.thresholds >= threshold
            if reached.any():
                place = int(reached.sum()) - 1
                axes.plot(curve.recall[place], curve.precision[place], "o", color=shown, markersize=5)
        lowest = min(curve.precision[curve.recall > 0.05].min() for curve in (development, test))
        axes.set(xlim=(0, 1.01), ylim=(max(0.0, lowest - 0.02), 1.005), xlabel="recall", ylabel="precision")
        axes.set_title(f"dots: threshold {threshold:.3f}", fontsize=9, color=LIGHT[MUTED], loc="left")
        axes.legend(loc="lower left")
        return png(drawn)


def reliability_png(bins: Sequence[Bin]) -> bytes:
    """The share of positive texts over their mean score, with 95 % intervals."""
    with figure(4.6, 3.2, LIGHT) as (drawn, axes):
        axes.plot([0, 1], [0, 1], color=LIGHT[MUTED], linewidth=1, linestyle=(0, (4, 3)))
        x, y = [one.mean_score for one in bins], [one.positive.estimate for one in bins]
        # Wilson's bounds at 0 and 1 may miss the estimate by a last bit
        below = [max(0.0, one.positive.estimate - one.positive.low) for one in bins]
        above = [max(0.0, one.positive.high - one.positive.estimate) for one in bins]
        axes.errorbar(x, y, yerr=[below, above], fmt="o", markersize=4, color=LIGHT[FIRST], elinewidth=1.2)
        for one in bins:
            axes.annotate(
                f"{one.n:,}", (one.mean_score, one.positive.estimate), xytext=(6, -3),
                textcoords="offset points", fontsize=7, color=LIGHT[INK],
            )  # fmt: skip
        axes.set(xlim=(-0.02, 1.1), ylim=(-0.02, 1.02), xlabel="mean score", ylabel="share that is positive")
        axes.set_title("test part; numbers: texts", fontsize=9, color=LIGHT[MUTED], loc="left")
        return png(drawn)
