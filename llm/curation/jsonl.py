"""Reader of JSON lines."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from llm.curation import files
from llm.types import ConfigError


class JsonLines:
    """One JSON object a line (.jsonl, .ndjson, also .gz): a file, a folder or a glob pattern.

    Args:
        path: File, folder or pattern.
        text: Column of the text.
        id: Column of the document's name; the file and line number when null.
        domain: Domain of the documents, unless `domain_column` names one.
        domain_column: Column of the domain.

    Raises:
        ConfigError: nothing there; when read: a broken line (with its file:line), a missing column.
    """

    def __init__(
        self,
        path: str,
        text: str = "text",
        id: str | None = None,
        domain: str = "text",
        domain_column: str | None = None,
    ) -> None:
        self.path, self.text, self.id, self.domain, self.domain_column = path, text, id, domain, domain_column
        self._paths = files.find(path, (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"))

    def documents(self) -> pl.LazyFrame:
        """Rows id, text, source, domain."""
        rows = []
        for path in self._paths:
            name = files.label(path, self._paths)
            for number, line in enumerate(files.read_text(path).split("\n"), start=1):
                if not line.strip():
                    continue
                where = f"{path}:{number}"
                row = _object(line, where)
                key = name + f":{number}" if self.id is None else _field(row, "id", self.id, where)
                domain = self.domain
                if self.domain_column is not None:
                    domain = _field(row, "domain_column", self.domain_column, where)
                rows.append((key, _field(row, "text", self.text, where, only_text=True), path.name, domain))
        return pl.LazyFrame(
            rows, schema=dict.fromkeys(("id", "text", "source", "domain"), pl.String), orient="row"
        )

    def fingerprint(self) -> str:
        """Names, sizes and times of the files, and which columns are read."""
        return files.fingerprint(self._paths, self.text, self.id, self.domain, self.domain_column)


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError("path", where, f"is not a line of JSON ({error})") from None
    if not isinstance(row, dict):
        raise ConfigError("path", where, 'is not a JSON object; each line must be one, like {"text": ...}')
    return row


def _field(row: dict[str, Any], key: str, column: str, where: str, *, only_text: bool = False) -> str:
    if column not in row:
        raise ConfigError(
            key, column, f"no such column at {where}; it has {', '.join(map(str, row)) or 'none'}"
        )
    value = row[column]
    if only_text and not isinstance(value, str):
        raise ConfigError(key, column, f"is not text at {where} but {type(value).__name__}")
    return str(value)
