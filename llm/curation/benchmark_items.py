"""The items of a benchmark's files, and the forms in which a document may repeat one."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from llm.curation import files
from llm.inputs import read_jsonl, read_text
from llm.types import ConfigError

SUFFIXES = tuple(
    suffix + packed
    for suffix in (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
    for packed in ("", ".gz")
)


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark.

    name: ``<benchmark>:<id>``. parts: its fields in the order of the config; a field that is a list (the
    choices) keeps its elements apart.
    """

    name: str
    parts: tuple[tuple[str, ...], ...]

    @property
    def benchmark(self) -> str:
        """The benchmark's name in the config."""
        return self.name.partition(":")[0]

    def forms(self) -> tuple[str, ...]:
        """The whole item, and where a field has choices, the item with each of them alone."""
        found = [" ".join(piece for part in self.parts for piece in part)]
        for place, part in enumerate(self.parts):
            for choice in part if len(part) > 1 else ():
                found.append(
                    " ".join((*_joined(self.parts[:place]), choice, *_joined(self.parts[place + 1 :])))
                )
        return tuple(dict.fromkeys(found))

    @property
    def question(self) -> str:
        """The first field alone."""
        return " ".join(self.parts[0])


def read_items(name: str, settings: Mapping[str, Any]) -> list[Item]:
    """The items of one benchmark.

    Args:
        name: The benchmark's name.
        settings: `path`: a file, folder or pattern of jsonl, json, csv, tsv or parquet, plain or gzipped.
            `text`: the fields that make an item's text, in the order a user sees them; a dot reaches into an
            object (`choices.text`). `id`: the field that names an item; its place in the files when left out.

    Raises:
        ConfigError: no such file or field, or a broken one. Key `benchmarks.NAME.path` (`.text`, `.id`).
    """
    key = f"benchmarks.{name}"
    check_settings(name, settings)
    fields = [settings["text"]] if isinstance(settings["text"], str) else list(settings["text"])
    paths = benchmark_files(name, settings)
    items = []
    for path, place in zip(paths, files.labels(paths), strict=True):
        label = "" if len(paths) == 1 else place + ":"
        for number, row in enumerate(_rows(path, f"{key}.path")):
            where = f"row {number + 1} of {path.name}"
            parts = tuple(_texts(row, field, f"{key}.text", where) for field in fields)
            own = settings.get("id")
            row_name = f"{label}{number}" if own is None else _field(row, own, f"{key}.id", where)
            if any(any(part) for part in parts):
                items.append(Item(f"{name}:{row_name}", parts))
    if not items:
        raise ConfigError(f"{key}.path", settings["path"], "holds no item")
    return items


def benchmark_files(name: str, settings: Mapping[str, Any]) -> list[Path]:
    """The files that `read_items` reads.

    Raises:
        ConfigError: there is none. Key `benchmarks.NAME.path`.
    """
    try:
        return files.find(str(settings["path"]), SUFFIXES)
    except ConfigError as error:
        raise ConfigError(f"benchmarks.{name}.path", error.value, error.mend) from None


def check_settings(name: str, settings: object) -> None:
    """What `read_items` needs is there and nothing else.

    Raises:
        ConfigError: it is not. Key `benchmarks.NAME` or a key in it.
    """
    key = f"benchmarks.{name}"
    if not isinstance(settings, Mapping):
        raise ConfigError(key, settings, "give it `path` and `text`, the fields that make an item's text")
    for own in settings:
        if own not in ("path", "text", "id"):
            raise ConfigError(f"{key}.{own}", settings[own], "no such key; there are path, text and id")
    for own in ("path", "text"):
        if not settings.get(own):
            raise ConfigError(f"{key}.{own}", settings.get(own), "is needed")


def _joined(parts: Sequence[Sequence[str]]) -> list[str]:
    return [piece for part in parts for piece in part]


def _rows(path: Path, key: str) -> Sequence[Mapping[str, Any]]:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind in ("jsonl", "ndjson"):
        return [row for _, row in read_jsonl([str(path)], key=key)]
    try:
        if kind == "parquet":
            raw = path.read_bytes()
            return pl.read_parquet(
                io.BytesIO(gzip.decompress(raw) if path.suffix == ".gz" else raw)
            ).to_dicts()
        text = read_text(path, key=key)
        if kind in ("csv", "tsv"):
            separator = "\t" if kind == "tsv" else ","
            return pl.read_csv(text.encode(), separator=separator, infer_schema=False).to_dicts()
        found = json.loads(text)
    except (pl.exceptions.PolarsError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        mend = (
            f"is not a whole {kind} file ({str(error).strip().splitlines()[0] if str(error) else 'damaged'})"
        )
        raise ConfigError(key, path, mend) from None
    if isinstance(found, Mapping):  # {"data": [...]} or the like: the only list in it
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(lists) == 1 else [found]
    if not isinstance(found, list) or not all(isinstance(row, Mapping) for row in found):
        raise ConfigError(key, path, "needs a list of objects, one an item")
    return found


def _texts(row: Mapping[str, Any], field: str, key: str, where: str) -> tuple[str, ...]:
    value = _field(row, field, key, where)
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(str(one) for one in values if one is not None)


def _field(row: Mapping[str, Any], field: str, key: str, where: str) -> Any:
    value: Any = row
    for name in field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise ConfigError(key, field, f"no such field in {where}; it has {', '.join(map(str, row))}")
        value = value[name]
    return value
