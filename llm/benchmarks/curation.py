"""A corpus larger than memory, curated: what memory that takes, and whether documents still cost the same."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from llm import files
from llm.benchmarks.made_documents import blocks, documents, sentences
from llm.config import CONF
from llm.curation.engines import Polars
from llm.runs.run import Run
from llm.types import ConfigError

FILE_BYTES = 100_000_000
POLL_SECONDS = 0.1

Size = Annotated[int, Field(ge=1_000_000)]


class CurationAtScale:
    """Curates a small and a large corpus by the command line, each in a process that is watched from outside.

    The corpora are made from real prose and the standard library's sources with seeded edits: documents of
    about 2 kB, each of whole sentences in paragraphs (or blocks of code) that stand together nowhere else,
    one word in twelve replaced. 3 % of them repeat an earlier document exactly, 5 % nearly, and 2 % are of
    too few words.

    Args:
        path: Folder of texts (.txt, .txt.gz) to make the prose from.
        small_bytes: Text of the small corpus.
        large_bytes: Text of the large one.
        curation: Overrides of `task=curate`: which curation, which engine.
        folder: Where the corpora are made, and kept for the next time; the run's own when null.
        seed: Of the edits.
    """

    def __init__(
        self,
        path: str,
        small_bytes: Size = 500_000_000,
        large_bytes: Size = 5_000_000_000,
        curation: Sequence[str] = ("curation=files",),
        folder: str | None = None,
        seed: int = 0,
        name: str = "curation",
    ) -> None:
        self.path, self.small_bytes, self.large_bytes = path, small_bytes, large_bytes
        self.curation, self.folder, self.seed, self.name = tuple(curation), folder, seed, name

    def measure(self, run: Run) -> dict[str, float]:
        """``ratio`` of seconds a document, large over small, with the peak of resident memory of both."""
        folder = Path(self.folder) if self.folder else run.directory / "corpora"
        found: dict[str, dict[str, float]] = {}
        for name, size in (("small", self.small_bytes), ("large", self.large_bytes)):
            corpus = folder / f"{size}-{self.seed}"
            self._make(corpus, size, run)
            found[name] = self._curate(corpus, run.directory / name, run)
        for name in found:
            rates = files.read_json(run.directory / name / "tables" / "rates.json")
            run.log_table(f"rates_{name}", rates["columns"], rates["rows"])
        small, large = found["small"], found["large"]
        metrics = {"ratio": large["seconds_per_document"] / small["seconds_per_document"]}
        for name, values in found.items():
            metrics |= {f"{name}_{key}": value for key, value in values.items()}
        return metrics

    def _make(self, corpus: Path, n_bytes: int, run: Run) -> None:
        if (corpus / "whole.json").is_file():
            return
        corpus.mkdir(parents=True, exist_ok=True)
        pools = {"prose": sentences(self.path), "code": blocks()}
        work = _Making(corpus, pools, self.seed)
        sizes = [min(FILE_BYTES, n_bytes - start) for start in range(0, n_bytes, FILE_BYTES)]
        written = 0
        engine = Polars(n_workers=min(len(sizes), len(os.sched_getaffinity(0))))
        with engine, run.progress("make a corpus", n_bytes // 1_000_000, unit="MB") as progress:
            for made in engine.map(work, list(enumerate(sizes))):
                written += made
                progress.advance(made // 1_000_000)
        files.write_json(corpus / "whole.json", {"bytes": written})

    def _curate(self, corpus: Path, directory: Path, run: Run) -> dict[str, float]:
        command = [sys.executable, str(CONF.parent / "main.py"), "task=curate", *self.curation]
        command += ["curation/source@curation.sources.files=jsonl", f"curation.sources.files.path={corpus}"]
        command += ["curation.sources.files.domain_column=domain", "curation.attributes=null"]
        command += [f"run_dir={directory.resolve()}", "tracker=none"]
        began, peak = time.monotonic(), 0
        log = directory.with_suffix(".log")
        with log.open("w") as output, run.progress(f"curate {corpus.name}", None, unit="samples") as progress:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            while process.poll() is None:
                peak = max(peak, resident_bytes(process.pid))
                progress.advance(1, peak_gigabytes=peak / 1e9)
                time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - began
        if process.returncode:
            last = (log.read_text(encoding="utf-8").strip().splitlines() or [""])[-1]
            raise ConfigError("curation", " ".join(self.curation), f"task=curate failed: {last}")
        summary: dict[str, Any] = files.read_json(directory / "summary.json")
        n_documents = summary["documents"]["read"]
        return {
            "documents": float(n_documents),
            "bytes": float(summary["funnel"][0]["bytes_in"]),
            "seconds": seconds,
            "seconds_per_document": seconds / n_documents,
            "peak_bytes": float(peak),
            "kept_documents": float(summary["documents"]["train"] + summary["documents"]["validation"]),
        }


@dataclass(frozen=True)
class _Making:
    """Writes one file of a corpus; its number seeds it, so that files can be made in any order."""

    corpus: Path
    pools: dict[str, list[str]]
    seed: int

    def __call__(self, asked: tuple[int, int]) -> int:
        number, n_bytes = asked
        made = 0
        with (self.corpus / f"{number:04}.jsonl").open("w", encoding="utf-8") as file:
            for domain, text in documents(self.pools, random.Random(f"{self.seed} {number}")):
                file.write(json.dumps({"text": text, "domain": domain}) + "\n")
                made += len(text.encode())
                if made >= n_bytes:
                    return made
        return made


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants, shared pages counted in each (Linux's /proc)."""
    total = 0
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    total += 1024 * int(found[1]) if found else 0
    return total + sum(resident_bytes(int(child)) for child in children)
