"""Numbers as people read them, and what they mean in sentences that claim no more than they show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llm.reports.facts import Exam, Facts, Preferences, Score
from llm.runs.progress import duration


def number(value: object, digits: int = 4) -> str:
    """``1,234,567``, ``0.8123``, ``1.2e-05``; a dash for None, any other text as it is."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e7):
        return f"{value:.{digits - 1}g}"
    whole = max(0, digits - (len(str(int(abs(value)))) if abs(value) >= 1 else 0))
    return f"{value:,.{whole}f}"


def short(value: float) -> str:
    """``124.4 M``, ``2.05 B``, ``812``."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """``4.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    return f"{value:.1f} s" if value < 10 else duration(value)


def percent(value: float) -> str:
    """``41.3 %``."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def listing(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""


def verdict(facts: Facts, result: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, one sentence each; what was not measured is not spoken of."""
    said: list[str] = []
    status = result.get("status")
    if status in ("failed", "interrupted"):
        said.append(
            f"This run {'failed' if status == 'failed' else 'was interrupted'}: what follows is partial."
        )
        if result.get("error"):
            said.append(str(result["error"]))
    said += _of_losses(facts)
    if "preferences" in facts:
        said += _of_preferences(facts["preferences"])
    if "exam" in facts:
        said += _of_exam(facts["exam"])
    return said + [line for line, _ in published(facts, result)]


def _of_losses(facts: Facts) -> list[str]:
    pairs = [
        (str(stage.get("name")), before, after)
        for stage in facts.get("stages", [])
        if (before := stage.get("before")) is not None and (after := stage.get("after")) is not None
    ]
    fell = [name for name, before, after in pairs if after < before]
    rose = [name for name, before, after in pairs if not after < before]
    said = []
    if fell and not rose:
        every = "in every training stage" if len(fell) > 1 else "in training"
        said.append(f"Held-out loss fell {every} ({listing(fell)}).")
    elif rose:
        said.append(
            f"Held-out loss did not fall in {listing(rose)}"
            + (f"; it fell in {listing(fell)}." if fell else ".")
        )
    return said


def _of_preferences(preferences: Preferences) -> list[str]:
    models, difference = preferences.get("models", []), preferences.get("difference")
    if not difference or not _has_interval(difference):
        return []
    last, first = (
        (models[-1]["name"], models[-2]["name"]) if len(models) > 1 else ("the last model", "the one before")
    )
    size = f"{difference['value']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}] nats a token"
    pairs = (
        f" on {preferences['n_pairs']:,} held-out pairs" if "n_pairs" in preferences else " on held-out pairs"
    )
    if difference["low"] > 0:
        return [f"{last} prefers the chosen answers more than {first} does{pairs}: {size}."]
    if difference["high"] < 0:
        return [
            f"{last} prefers the chosen answers less than {first} does{pairs}: {size}. Alignment did harm."
        ]
    return [f"Whether {last} prefers the chosen answers more than {first} cannot be told{pairs}: {size}."]


def _of_exam(exam: Exam) -> list[str]:
    models = [model for model in exam.get("models", []) if _has_interval(model)]
    if not models:
        return []
    model = models[-1]
    span = f"[{percent(model['low'])}, {percent(model['high'])}]"
    text = f"{model['name']} answers {percent(model['value'])} of the exam {span}"
    if "chance" in exam:
        text += ", " + _against(model, exam["chance"], f"chance ({percent(exam['chance'])})")
    if "baseline" in exam:
        name = exam.get("baseline_name", "baseline")
        text += " and " + _against(model, exam["baseline"], f"the {name} ({percent(exam['baseline'])})")
    return [text + "."]


def _against(model: Score, other: float, name: str) -> str:
    if model["low"] > other:
        return f"above {name}"
    if model["high"] < other:
        return f"below {name}"
    return f"not to be told from {name}"


def _has_interval(score: Score) -> bool:
    return all(name in score for name in ("value", "low", "high"))


def published(facts: Facts, result: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Each published number beside the measured one, in words, and whether it was met."""
    given = facts.get("published") or {}
    tolerance = given.get("tolerance")
    source = f" ({given['source']})" if given.get("source") else ""
    said = []
    for name, value in given.items():
        if name in ("tolerance", "source") or not isinstance(value, int | float):
            continue
        measured = (result.get("metrics") or {}).get(name)
        if not isinstance(measured, int | float):
            continue
        off = measured - value
        text = f"{name} is {measured:.4f}; published: {value:g}{source}; difference {off:+.4f}"
        met = True
        if isinstance(tolerance, int | float):
            met = abs(off) <= tolerance
            text += f", {'within' if met else 'outside'} the tolerance of {tolerance:g}"
        said.append((text + ".", met))
    return said


def table(facts: Facts) -> str:
    """The end of a lifecycle in a few lines for a terminal: losses, the exam, the preferences."""
    rows = [["stage", "before", "after", "time"]]
    for stage in facts.get("stages", []):
        took = (
            seconds(stage["seconds"]) + (" (reused)" if stage.get("reused") else "")
            if "seconds" in stage
            else ""
        )
        losses = [number(stage[key]) if stage.get(key) is not None else "" for key in ("before", "after")]
        rows.append([str(stage.get("name", "")), *losses, took])
    parts = [aligned(rows)] if len(rows) > 1 else []
    if exam := facts.get("exam"):
        rows = [
            [m.get("name", ""), percent(m["value"]), _span(m, 100)]
            for m in exam.get("models", [])
            if "value" in m
        ]
        rows += [["chance", percent(exam["chance"]), ""]] if "chance" in exam else []
        rows += (
            [[exam.get("baseline_name", "baseline"), percent(exam["baseline"]), ""]]
            if "baseline" in exam
            else []
        )
        parts.append(aligned([["exam", "accuracy", "interval"], *rows]))
    if preferences := facts.get("preferences"):
        scores = [*preferences.get("models", [])]
        scores += (
            [{"name": "difference", **preferences["difference"]}] if preferences.get("difference") else []
        )
        rows = [[m.get("name", ""), f"{m['value']:+.4f}", _span(m)] for m in scores if "value" in m]
        parts.append(aligned([["chosen over rejected", "nats a token", "interval"], *rows]))
    return "\n\n".join(parts)


def _span(score: Score, scale: float = 1.0) -> str:
    if not _has_interval(score):
        return ""
    return f"[{scale * score['low']:.4g}, {scale * score['high']:.4g}]"


def aligned(rows: list[list[str]]) -> str:
    """Columns of text: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def next_steps(facts: Facts) -> str:
    """The commands to go on with, for a terminal."""
    pairs = list((facts.get("commands") or {}).items())
    return "\n".join(f"{what}:\n    {line}" for what, line in pairs)
