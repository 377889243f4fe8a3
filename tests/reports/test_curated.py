"""The page of a curation says what its ledger says."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from llm.curation.exact_dedup import ExactDedup
from llm.curation.jsonl import JsonLines
from llm.curation.pipeline import Curation
from llm.curation.quality import GopherQuality
from llm.curation.split import HashSplit
from llm.reports import curated, html
from llm.runs.run import Run
from llm.tasks.curate import curate
from tests.curation import small_corpus
from tests.reports.test_page import Structure

EVIL = '<script>alert("x")</script> | $\\frac$'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curated")
    source = small_corpus.write(folder / "texts")
    with (source / "3.jsonl").open("w") as file:
        file.write(json.dumps({"text": f"{EVIL} short", "kind": EVIL}) + "\n{broken\n")
    curation = Curation(
        sources={"files": JsonLines(str(source), domain_column="kind", licence="CC0-1.0")},
        steps={"exact_dedup": ExactDedup(), "quality": GopherQuality()},
        split=HashSplit(0.2),
    )
    curate(run=Run(folder / "run"), curation=curation)
    return folder / "run"


def test_sections_nest_and_show_every_reason(run: Path):
    page = html.document("t", curated.sections(run))
    found = Structure(page)
    assert "script" not in found.tags
    assert len(found.ids) == len(set(found.ids))
    ledger = pl.read_parquet(run / "ledger.parquet")
    for (step, reason), rows in ledger.group_by("step", "reason"):
        assert f"{step}: {reason}, {rows.height:,}" in found.text
    assert "CC0-1.0" in found.text
    assert "Clusters of duplicates" in found.text
    assert curated.sections(run.parent) == [], "another run's page has none of it"


def test_tables_add_up(run: Path):
    ledger, funnel = (pl.read_parquet(run / f"{name}.parquet") for name in ("ledger", "funnel"))
    assert funnel["documents"].sum() == ledger.height
    assert funnel["n_bytes"].sum() == ledger["n_bytes"].sum()
    assert funnel["removed"].sum() == (ledger["change"] < 0).sum()
    assert funnel["step"].unique(maintain_order=True).to_list() == ["read", "exact_dedup", "quality"]
    broken = ledger.filter(reason="broken_json")
    assert broken["provenance"][0].endswith("3.jsonl:2")


def test_the_data_card(run: Path):
    card = (run / "data_card.md").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert f"{summary['documents']['read']:,} read" in card
    for name, digest in summary["fingerprints"]["outputs"].items():
        assert f"| {name} | `{digest}` |" in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") in (4, 5, 3) for line in rows), "a name breaks the table"
