"""Reader of JSON lines."""

from __future__ import annotations

from typing import Any

import polars as pl

from llm.curation import files
from llm.inputs import Place, read_jsonl
from llm.types import ConfigError


class JsonLines(files.Columns):
    """One JSON object a line (.jsonl, .ndjson, also .gz): a file, a folder or a glob pattern.

    Arguments as in `llm.curation.files.Columns`.

    Raises:
        ConfigError: nothing there; when read: a broken line (with its number), a missing column.
    """

    suffixes = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")

    def documents(self) -> pl.LazyFrame:
        """Rows id, text, source, domain."""
        rows = []
        for path in self._paths:
            name = files.label(path, self._paths)
            for place, row in read_jsonl([str(path)], key="path"):
                key = f"{name}:{place.line}" if self.id is None else _field(row, "id", self.id, place)
                domain = self.domain
                if self.domain_column is not None:
                    domain = _field(row, "domain_column", self.domain_column, place)
                rows.append((key, _field(row, "text", self.text, place, only_text=True), path.name, domain))
        return pl.LazyFrame(
            rows, schema=dict.fromkeys(("id", "text", "source", "domain"), pl.String), orient="row"
        )


def _field(row: dict[str, Any], key: str, column: str, place: Place, *, only_text: bool = False) -> str:
    where = f"{place.path}:{place.line}"
    if column not in row:
        raise ConfigError(
            key, column, f"no such column at {where}; it has {', '.join(map(str, row)) or 'none'}"
        )
    value = row[column]
    if only_text and not isinstance(value, str):
        raise ConfigError(key, column, f"is not text at {where} but {type(value).__name__}")
    return str(value)
