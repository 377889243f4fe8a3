"""The report of one run: `report.html`, a single file that works offline."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, cast

from llm import files
from llm.reports import curated, html, plots, words
from llm.reports.facts import Exam, Facts, Preferences, Removal, Sample, Stage
from llm.runs import directory
from llm.runs.directory import RunRecord

FACTS = "report.json"
"""The facts a report was written from, kept in the run directory so that it can be written again."""


def write(run_directory: str | Path, facts: Facts | None = None) -> Path:
    """Writes `report.html` (and the facts it came from) in a run directory.

    Args:
        run_directory: of a run at its end, or of one under way.
        facts: what the directory does not say itself; those of the last time when None.

    Returns:
        Where the page is.

    Raises:
        ConfigError: not a run directory.
    """
    record = directory.read(run_directory, key="source")
    if facts is None:
        facts = _kept(record.directory)
    else:
        files.write_json(record.directory / FACTS, facts)
    if "published" not in facts and isinstance(given := record.config.get("published"), Mapping):
        facts = {**facts, "published": given}
    return html.write(record.directory / "report.html", _title(record, facts), _body(record, facts))


def _kept(folder: Path) -> Facts:
    try:
        return cast(Facts, dict(files.read_json(folder / FACTS)))
    except (OSError, ValueError, TypeError):  # never written, or torn: the directory itself still says much
        return {}


def _title(record: RunRecord, facts: Facts) -> str:
    return facts.get("title") or str(record.config.get("name") or record.directory.name)


def _body(record: RunRecord, facts: Facts) -> list[str | None]:
    result = {**record.result, "metrics": record.result.get("metrics") or {}}
    said = facts.get("verdict") or words.verdict(facts, result)
    verdict = "".join(f"<li>{escape(line)}</li>" for line in said)
    return [
        _header(record, facts),
        f'<div class="verdict"><ul>{verdict}</ul></div>' if verdict else None,
        html.tiles(_tiles(record, facts)),
        *curated.sections(record.directory),
        html.section("Stages", _stages(facts.get("stages", []))),
        _curves(record, facts),
        html.section("Pictures", *(_picture(path) for path in sorted(record.directory.glob("*.png")))),
        _results(result, facts) if not facts.get("stages") else None,
        html.row(
            _exam(facts.get("exam"), facts.get("confidence", 0.95)),
            _preferences(facts.get("preferences"), facts.get("confidence", 0.95)),
        ),
        _samples(facts.get("samples", [])),
        html.row(_funnel(facts.get("funnel", [])), _wall_time(facts.get("stages", []))),
        html.section(
            "Data and model", html.facts({k: _value(v) for k, v in (facts.get("data") or {}).items()})
        ),
        html.section("Go on from here", html.commands(facts.get("commands") or _commands(record))),
        _provenance(record),
    ]


def _picture(path: Path) -> str:
    """A plot that a task has left, inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    name = escape(path.stem.replace("_", " "))
    image = f'<img src="data:image/png;base64,{data}" alt="{name}">'
    return f"<figure>{image}<figcaption>{name}</figcaption></figure>"


def _value(value: object) -> str:
    return words.number(value)


def _header(record: RunRecord, facts: Facts) -> str:
    bad = "" if record.status == "done" else " bad"
    when = record.provenance.get("started_at", "")
    under = " · ".join(filter(None, [str(record.directory.name), str(when).replace("T", " ")]))
    return (
        f"<header><h1>{escape(_title(record, facts))} "
        f'<span class="badge{bad}">{escape(record.status)}</span></h1>'
        f'<p class="under">{escape(under)}</p></header>'
    )


def _tiles(record: RunRecord, facts: Facts) -> list[tuple[str, str]]:
    result = record.result
    metrics = result.get("metrics") or {}
    found = []
    if isinstance(metrics.get("val_loss"), int | float):
        found.append(("validation loss", f"{metrics['val_loss']:.4f}"))
    scored = [score for score in (facts.get("exam") or {}).get("models", []) if "value" in score]
    if scored:
        found.append((f"exam, {scored[-1].get('name', 'model')}", words.percent(scored[-1]["value"])))
    if isinstance(result.get("n_params"), int):
        found.append(("parameters", words.short(result["n_params"])))
    if isinstance(result.get("tokens"), int | float):
        found.append(("training tokens", words.short(result["tokens"])))
    if isinstance(result.get("wall_seconds"), int | float):
        found.append(("wall time", words.seconds(result["wall_seconds"])))
    energy = record.provenance.get("energy") or {}
    if isinstance(energy.get("joules"), int | float):
        found.append(
            (f"energy ({str(energy['method']).split(':')[0]})", f"{energy['joules'] / 3600:,.1f} Wh")
        )
    return found


def _stages(stages: Sequence[Stage]) -> str | None:
    if not stages:
        return None
    rows = []
    for stage in stages:
        before, after = stage.get("before"), stage.get("after")
        change = (
            f"{after - before:+.4f}".replace("-", "−") if before is not None and after is not None else ""
        )
        took = words.seconds(stage["seconds"]) if "seconds" in stage else ""
        rows.append(
            [
                stage.get("name", ""),
                stage.get("metric", "validation loss") if after is not None else "",
                "" if before is None else words.number(before),
                "" if after is None else words.number(after),
                change,
                took + (" (reused)" if stage.get("reused") else ""),
                stage.get("note", ""),
            ]
        )
    head = ["stage", "held-out metric", "before", "after", "change", "wall time", ""]
    return html.table(head, rows, numbers=[2, 3, 4, 5])


def _curves(record: RunRecord, facts: Facts) -> str | None:
    by_stage: dict[str | None, list[Mapping[str, Any]]] = {}
    for line in record.metrics:
        by_stage.setdefault(line.get("stage"), []).append(line)
    if len(by_stage) <= 1 and not facts.get("stages"):
        lines = next(iter(by_stage.values()), [])
        given = facts.get("published") or {}
        value, tolerance = given.get("val_loss"), given.get("tolerance")
        band = None
        if isinstance(value, int | float):
            band = (float(value), float(tolerance) if isinstance(tolerance, int | float) else 0.0)
        small = [
            html.plot(plots.curve(lines, metric, f"curve-{metric}"))
            for metric in ("lr", "grad_norm", "tokens_per_second")
        ]
        return html.section(
            "Loss",
            html.plot(plots.losses(lines, "losses", wide=True, published=band)),
            html.row(*small, small=True),
        )
    figures = []
    for number, (stage, lines) in enumerate(by_stage.items()):
        drawn = plots.losses(lines, f"losses-{number}")
        if drawn:
            figures.append(f"<div><h3>{escape(str(stage or 'run'))}</h3>{html.plot(drawn)}</div>")
    return html.section("Loss, stage by stage", html.row(*figures))


def _results(result: Mapping[str, Any], facts: Facts) -> str | None:
    """The final metrics of a single task, published ones beside them."""
    given = facts.get("published") or {}
    shown = {name: value for name, value in result["metrics"].items() if not isinstance(value, Mapping)}
    if not shown:
        return None
    if not given:
        rows = [[name, words.number(value, 5)] for name, value in shown.items()]
        return html.section("Final metrics", html.table(["metric", "value"], rows, numbers=[1]))
    tolerance = given.get("tolerance")
    width = f" ± {tolerance:g}" if isinstance(tolerance, int | float) else ""
    rows = []
    for name, value in shown.items():
        other = given.get(name)
        beside = f"{other:g}{width}" if isinstance(other, int | float) else ""
        off = (
            f"{value - other:+.4f}"
            if isinstance(other, int | float) and isinstance(value, int | float)
            else ""
        )
        rows.append([name, words.number(value, 5), beside, off])
    lead = f"Published: {given['source']}" if given.get("source") else ""
    head = ["metric", "measured", "published", "difference"]
    return html.section("Final metrics", html.table(head, rows, numbers=[1, 2, 3]), lead=lead)


def _sure(confidence: float) -> str:
    return f"{100 * confidence:g} % intervals"


def _exam(exam: Exam | None, confidence: float) -> str | None:
    if not exam:
        return None
    marks = {}
    if "chance" in exam:
        marks[f"chance, {words.percent(exam['chance'])}"] = exam["chance"]
    if "baseline" in exam:
        marks[f"{exam.get('baseline_name', 'baseline')}, {words.percent(exam['baseline'])}"] = exam[
            "baseline"
        ]
    drawn = plots.intervals(
        exam.get("models", []), "exam", marks=marks, label="questions answered correctly (%)", is_percent=True
    )
    count = f"{exam['n_questions']:,} questions; " if "n_questions" in exam else ""
    name = exam.get("name", "multiple choice")
    return html.section(
        f"Exam: {name}", html.plot(drawn, narrow=True), lead=f"{count}bars are {_sure(confidence)}."
    )


def _preferences(preferences: Preferences | None, confidence: float) -> str | None:
    if not preferences:
        return None
    drawn = plots.intervals(
        preferences.get("models", []),
        "preferences",
        marks={"no preference": 0.0},
        label="log-probability of chosen minus rejected (nats a token)",
    )
    rows = []
    difference = preferences.get("difference")
    if difference and "value" in difference:
        span = (
            f"[{difference['low']:+.4f},\N{NO-BREAK SPACE}{difference['high']:+.4f}]"
            if "low" in difference
            else ""
        )
        rows.append(
            [
                difference.get("name", "difference, paired bootstrap"),
                f"{difference['value']:+.4f}\N{NO-BREAK SPACE}{span}",
            ]
        )
    if "baseline" in preferences:
        name = preferences.get("baseline_name", "baseline")
        rows.append([f"{name}: pairs told apart", words.percent(preferences["baseline"])])
    count = f"{preferences['n_pairs']:,} held-out pairs; " if "n_pairs" in preferences else ""
    return html.section(
        "Preferences",
        html.plot(drawn, narrow=True),
        html.table([], rows, numbers=[1]) if rows else None,
        lead=f"{count}length-normalised; bars are {_sure(confidence)}.",
    )


def _samples(samples: Sequence[Sample]) -> str | None:
    parts = []
    for sample in samples:
        who = f" <b>{escape(str(sample['model']))}</b>" if sample.get("model") else ""
        parts.append(
            f'<div class="sample"><pre class="prompt">{escape(str(sample.get("prompt", "")))}</pre>{who}'
            f'<pre class="completion">{escape(str(sample.get("completion", "")))}</pre></div>'
        )
    return html.section("What it writes", *parts, lead="As generated, not chosen.")


def _funnel(funnel: Sequence[Removal]) -> str | None:
    rows = []
    before: int | None = None
    for step in funnel:
        count = int(step.get("documents", 0))
        lost = (
            "" if not before else f"  (−{words.percent((before - count) / before)})" if count < before else ""
        )
        rows.append((str(step.get("step", "")), float(count), f"{count:,}{lost}"))
        before = count
    drawn = plots.bars(rows, "funnel", "documents left after each curation step", colour=plots.THIRD)
    return html.section("Curation", html.plot(drawn, "Documents left after each step.", narrow=True))


def _wall_time(stages: Sequence[Stage]) -> str | None:
    rows = [(str(stage.get("name", "")), float(stage["seconds"])) for stage in stages if "seconds" in stage]
    reused = [str(stage.get("name", "")) for stage in stages if stage.get("reused")]
    caption = f"Reused from an earlier run: {words.listing(reused)}." if reused else ""
    return html.section("Wall time", html.plot(plots.wall_time(rows, "wall-time"), caption, narrow=True))


def _commands(record: RunRecord) -> dict[str, str]:
    folder = shlex.quote(str(record.directory))
    trained = (record.directory / "checkpoints").exists()
    generate = {"Generate from it": f"python main.py task=generate checkpoint={folder} prompt=-"}
    return {
        **(generate if trained else {}),
        "Run it again and compare bit by bit": f"python main.py reproduce={folder}",
    }


def _provenance(record: RunRecord) -> str | None:
    origin, result = record.provenance, record.result
    git, device = origin.get("git") or {}, origin.get("device") or {}
    packages = origin.get("packages") or {}
    versions = [
        f"{name} {packages[name]}" for name in ("torch", "numpy", "polars", "tokenizers") if name in packages
    ]
    dirty = [
        word
        for word, there in (
            ("uncommitted changes", git.get("diff")),
            ("untracked sources", git.get("untracked")),
        )
        if there
    ]
    commit = f"{git['commit'][:12]}" if git.get("commit") else None
    shown = {
        "code": " + ".join(filter(None, [commit, *dirty])) or git.get("reason"),
        "fingerprint": str(result.get("fingerprint") or "")[:16],
        "weights": str(result.get("weights_sha256") or "")[:16],
        "command": shlex.join(map(str, origin.get("argv") or [])),
        "python": origin.get("python"),
        "packages": ", ".join(versions),
        "device": " · ".join(str(device[k]) for k in ("name", "cpu") if device.get(k)),
        "threads": origin.get("threads"),
        "processes": origin.get("world_size"),
        "platform": origin.get("platform"),
        "seed": (origin.get("seeds") or {}).get("seed"),
        "started": origin.get("started_at"),
        "ended": origin.get("ended_at"),
        "energy": _energy(origin.get("energy")),
        **{f"data: {name}": str(mark)[:16] for name, mark in (origin.get("data") or {}).items()},
    }
    known = {name: value for name, value in shown.items() if value not in (None, "")}
    config = escape(directory.to_yaml(record.config))
    config = f"<details><summary>The whole config</summary><pre>{config}</pre></details>"
    return html.section("Where it came from", html.facts(known), config)


def _energy(energy: Mapping[str, Any] | None) -> str | None:
    if not energy:
        return None
    if energy.get("joules") is None:
        return f"not known ({energy.get('reason', 'nothing to read')})"
    return f"{energy['joules'] / 3600:,.2f} Wh ({energy.get('method')})"
