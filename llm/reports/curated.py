"""What a curation did, for people: the funnel, why documents went, the mix before and after, a data card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from llm import files
from llm.reports import html, plots, words

N_EXAMPLES = 3
N_CLUSTERS = 8
N_BARS = 12


def sections(directory: Path) -> list[str | None]:
    """The curation's part of a run's page; nothing when the run is no curation."""
    summary = _summary(directory)
    if summary is None:
        return []
    reasons = reasons_of(directory)
    return [
        html.tiles(_tiles(summary)),
        html.section("Funnel", _funnel_plot(summary), _funnel_table(summary)),
        html.section("Why documents went or changed", *_reasons(reasons)),
        html.section("Mix before and after", html.row(_mix(summary, "domain"), _mix(summary, "language"))),
        html.section("Duplicates", *_clusters(directory)),
        html.section("Licences", _licences(summary)),
        html.section("Pace", _rates(directory), lead="What one core does in a second of its time, by step."),
    ]


def _summary(directory: Path) -> dict[str, Any] | None:
    try:
        summary = dict(files.read_json(directory / "summary.json"))
    except (OSError, ValueError, TypeError):
        return None
    return summary if "funnel" in summary and (directory / "ledger.parquet").is_file() else None


def reasons_of(directory: Path) -> list[dict[str, Any]]:
    """Of every step and reason: documents, their bytes, and the first few as examples."""
    ledger = pl.scan_parquet(directory / "ledger.parquet", glob=False)
    found = (
        ledger.with_row_index("first")
        .group_by("step", "reason")
        .agg(
            pl.col("first").min(),
            pl.len().alias("documents"),
            (pl.col("change") < 0).sum().alias("removed"),
            (pl.col("change") > 0).sum().alias("repeated"),
            pl.col("n_bytes").sum(),
        )
        .collect(engine="streaming")
        .sort("first")
    )
    order = found["step"].unique(maintain_order=True).to_list()
    rows = sorted(
        found.to_dicts(), key=lambda row: (order.index(row["step"]), -row["documents"], row["first"])
    )
    return [{**row, "examples": _examples(ledger, row["step"], row["reason"])} for row in rows]


def _examples(ledger: pl.LazyFrame, step: str, reason: str | None) -> list[dict[str, Any]]:
    """The first few: their texts alone are read, for a ledger may be larger than memory."""
    alike = ledger.filter((pl.col("step") == step) & pl.col("reason").eq_missing(pl.lit(reason)))
    return (
        alike.select("id", "excerpt", "score", "match")
        .head(N_EXAMPLES)
        .collect(engine="streaming")
        .to_dicts()
    )


def _tiles(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    counts, size = summary["documents"], sum(summary["bytes"].values())
    first = summary["funnel"][0]
    kept = counts["read"] - counts["removed"]
    repeated = counts.get("repeated", 0)
    copies = [("further copies", words.short(repeated))] if repeated else []
    return [
        ("documents read", words.short(counts["read"])),
        ("documents kept", f"{words.short(kept)} ({words.percent(kept / max(1, counts['read']))})"),
        *copies,
        ("bytes written", f"{words.short(size)} ({words.percent(size / max(1, first['bytes_in']))})"),
        ("altered", words.short(counts.get("altered", 0))),
        ("held out", words.short(counts["validation"])),
    ]


def _funnel_plot(summary: Mapping[str, Any]) -> str | None:
    rows = []
    for step in summary["funnel"]:
        before, after = step["documents_in"], step["documents_out"]
        lost = f"  (−{words.percent((before - after) / before)})" if after < before else ""
        rows.append((str(step["step"]), float(after), f"{after:,}{lost}"))
    return html.plot(plots.bars(rows, "curation-funnel", "documents after each step", colour=plots.THIRD),
                     "Documents behind each step.", narrow=True)  # fmt: skip


def _funnel_table(summary: Mapping[str, Any]) -> str:
    head = ["step", "documents in", "removed", "copies", "altered", "documents out", "bytes in", "bytes out"]
    counts = ("documents_in", "removed", "added", "altered", "documents_out", "bytes_in", "bytes_out")
    rows = [[step["step"], *(f"{step.get(count, 0):,}" for count in counts)] for step in summary["funnel"]]
    return html.table(head, rows, numbers=range(1, 8))


def _reasons(reasons: Sequence[Mapping[str, Any]]) -> list[str | None]:
    if not reasons:
        return ["<p>Nothing was removed or altered.</p>"]
    most = sorted(reasons, key=lambda row: -row["documents"])[:N_BARS]
    rows = [
        (f"{row['step']}: {row['reason']}", float(row["documents"]), f"{row['documents']:,}") for row in most
    ]
    drawn = plots.bars(rows, "curation-reasons", "documents by step and reason", colour=plots.SECOND)
    more = f" The largest {N_BARS} of {len(reasons)}." if len(reasons) > N_BARS else ""
    parts: list[str | None] = [html.plot(drawn, f"Documents by step and reason.{more}", narrow=True)]
    for row in reasons:
        done = "removed" if row["removed"] else "repeated" if row["repeated"] else "altered"
        title = f"{row['step']}: {row['reason']}, {row['documents']:,} {done} ({row['n_bytes']:,} bytes)"
        examples = [
            [one["id"], _score(one["score"]), one["match"] or "", one["excerpt"] or ""]
            for one in row["examples"]
        ]
        inside = html.table(["document", "score", "match", "how it began"], examples, numbers=[1])
        parts.append(f"<details><summary>{escape(title)}</summary>{inside}</details>")
    return parts


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _mix(summary: Mapping[str, Any], kind: str) -> str | None:
    """Shares of bytes by domain or language, before and after, side by side."""
    before: Mapping[str, Sequence[int]] = next(
        (step[f"{kind}s"] for step in summary["funnel"] if step.get(f"{kind}s")), {}
    )
    after: dict[str, int] = {}
    for side in summary[f"{kind}s"].values():
        for name, sizes in side.items():
            after[name] = after.get(name, 0) + sizes["bytes"]
    if not before or set(before) | set(after) <= {"unknown"}:
        return None
    whole_before = sum(size for _, size in before.values()) or 1
    whole_after = sum(after.values()) or 1
    names = sorted({*before, *after}, key=lambda name: -before.get(name, (0, 0))[1])
    rows = [(name, before.get(name, (0, 0))[1] / whole_before, after.get(name, 0) / whole_after)
            for name in names[:N_BARS]]  # fmt: skip
    drawn = plots.paired_bars(rows, f"curation-{kind}s", f"shares of bytes by {kind}", ("before", "after"))
    more = f" The largest {N_BARS} of {len(names)}." if len(names) > N_BARS else ""
    return html.plot(drawn, f"Shares of the bytes by {kind}.{more}", narrow=True)


def _clusters(directory: Path) -> list[str | None]:
    """How many documents said the same as one that stayed, and the largest such groups."""
    ledger = pl.scan_parquet(directory / "ledger.parquet", glob=False)
    twins = ledger.filter((pl.col("change") < 0) & pl.col("match").is_not_null())
    twins = twins.filter(pl.col("reason").str.contains("duplicate"))
    sizes = (
        twins.group_by("match")
        .agg((pl.len() + 1).alias("size"), pl.col("excerpt").first(), pl.col("score").min())
        .collect(engine="streaming")
        .sort("size", "match", descending=[True, False])
    )
    if not sizes.height:
        return []
    bins = [(2, 2), (3, 4), (5, 8), (9, 16), (17, 64), (65, 10**12)]
    rows = []
    for low, high in bins:
        n = sizes.filter(pl.col("size").is_between(low, high)).height
        name = f"{low}" if low == high else f"{low} to {high}" if high < 10**12 else f"{low} and more"
        rows.append((f"{name} documents", float(n), f"{n:,} clusters"))
    drawn = plots.bars(rows, "curation-clusters", "clusters of duplicates by size")
    largest = [[r["match"], f"{r['size']:,}", _score(r["score"]), r["excerpt"]]
               for r in sizes.head(N_CLUSTERS).iter_rows(named=True)]  # fmt: skip
    head = ["the one that stayed", "documents", "least similarity", "how a copy began"]
    return [
        html.plot(drawn, "Clusters of duplicates by size, the one that stayed included.", narrow=True),
        html.table(head, largest, numbers=[1, 2]),
    ]


def _licences(summary: Mapping[str, Any]) -> str | None:
    sides = summary.get("licences", {})
    total: dict[str, list[int]] = {}
    for side in sides.values():
        for name, sizes in side.items():
            known = total.setdefault(name, [0, 0])
            known[0] += sizes["documents"]
            known[1] += sizes["bytes"]
    if not total:
        return None
    rows = [
        [name, f"{n:,}", f"{size:,}"] for name, (n, size) in sorted(total.items(), key=lambda e: -e[1][1])
    ]
    return html.table(["licence", "documents", "bytes"], rows, numbers=[1, 2])


def _rates(directory: Path) -> str | None:
    try:
        rows = files.read_json(directory / "tables" / "rates.json")["rows"]
    except (OSError, ValueError, KeyError):
        return None
    shown = [
        [step, f"{n:,}", f"{megabytes:,.1f}", words.seconds(took), f"{per:,.0f}", f"{pace:,.1f}"]
        for step, n, megabytes, took, per, pace in rows
        if took >= 0.01
    ]
    head = ["step", "documents", "MB", "core time", "documents/s", "MB/s"]
    return html.table(head, shown, numbers=range(1, 6)) if shown else None


def write_tables(directory: Path) -> None:
    """The funnel by step and reason as ``funnel.parquet``, and the data card ``data_card.md``."""
    summary = _summary(directory)
    assert summary is not None, "a curation leaves a summary and a ledger"
    reasons = reasons_of(directory)
    texts, numbers = ("step", "reason"), ("documents", "removed", "repeated", "n_bytes")
    schema = {**dict.fromkeys(texts, pl.String()), **dict.fromkeys(numbers, pl.Int64())}
    with files.replacing(directory / "funnel.parquet") as temporary:
        pl.DataFrame([{key: row[key] for key in schema} for row in reasons], schema=schema).write_parquet(
            temporary
        )
    files.write_text(directory / "data_card.md", card(summary, reasons))


def card(summary: Mapping[str, Any], reasons: Sequence[Mapping[str, Any]]) -> str:
    """What a user of the corpus should know, in the form of a dataset card."""
    counts, size = summary["documents"], summary["bytes"]
    lines = [
        "# Data card",
        "",
        f"{counts['train']:,} training documents ({size['train']:,} bytes) and {counts['validation']:,} held "
        f"out ({size['validation']:,} bytes), of {counts['read']:,} read. {counts['removed']:,} were "
        f"removed; {counts.get('altered', 0):,} times a step altered one. `ledger.parquet` says of each why.",
    ]  # fmt: skip
    for kind, title in (("domains", "Domains"), ("languages", "Languages"), ("licences", "Licences")):
        lines += ["", f"## {title}", "", "| name | side | documents | bytes |", "|---|---|---:|---:|"]
        for side, found in summary.get(kind, {}).items():
            lines += [
                f"| {_cell(name)} | {side} | {n['documents']:,} | {n['bytes']:,} |"
                for name, n in found.items()
            ]
    lines += ["", "## What was done", "", "| step | reason | documents | bytes |", "|---|---|---:|---:|"]
    lines += [
        f"| {_cell(r['step'])} | {_cell(r['reason'])} | {r['documents']:,} | {r['n_bytes']:,} |"
        for r in reasons
    ]
    prints = summary.get("fingerprints", {})
    lines += ["", "## Fingerprints", "", "| of | digest |", "|---|---|"]
    lines += [f"| source {_cell(name)} | `{mark}` |" for name, mark in prints.get("inputs", {}).items()]
    lines += [f"| {_cell(name)} | `{mark}` |" for name, mark in prints.get("outputs", {}).items()]
    unknown = sum(
        side.get("unknown", {}).get("documents", 0) for side in summary.get("licences", {}).values()
    )
    lines += ["", "## Limits", ""]
    if unknown:
        lines.append(f"- The licence of {unknown:,} documents is not known.")
    lines += [f"- {note}" for note in summary.get("notices", [])]
    lines.append("- Filters judge by form and by models that make mistakes; nobody has read these documents.")
    return "\n".join(lines) + "\n"


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
