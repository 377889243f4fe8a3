"""Reader of plain text files."""

from __future__ import annotations

from typing import Literal

import polars as pl

from llm.curation import files
from llm.inputs import read_text


class TextFiles:
    """Text files (.txt, .md, also .gz): a file, a folder or a glob pattern.

    Args:
        path: File, folder or pattern.
        domain: Domain of the documents, the unit of mixture weights.
        per: `file`, or `paragraph` for one document a blank-line separated block.

    Raises:
        ConfigError: nothing there; when read: empty, not text.
    """

    def __init__(self, path: str, domain: str = "text", per: Literal["file", "paragraph"] = "file") -> None:
        self.path, self.domain, self.per = path, domain, per
        self._paths = files.find(path, (".txt", ".md", ".text", ".txt.gz", ".md.gz"))

    def documents(self) -> pl.LazyFrame:
        """Rows id, text, source, domain; ids are the file's place and the number of the block."""
        rows: list[tuple[str, str, str, str]] = []
        for path in self._paths:
            name, text = files.label(path, self._paths), read_text(path, key="path")
            if self.per == "file":
                rows.append((name, text, path.name, self.domain))
                continue
            blocks = [
                block.strip("\n") for block in text.replace("\r\n", "\n").split("\n\n") if block.strip()
            ]
            rows += [
                (f"{name}#{number}", block, path.name, self.domain) for number, block in enumerate(blocks)
            ]
        return pl.LazyFrame(
            rows, schema=dict.fromkeys(("id", "text", "source", "domain"), pl.String), orient="row"
        )

    def fingerprint(self) -> str:
        """Names, sizes and times of the files."""
        return files.fingerprint(self._paths, self.domain, self.per)
