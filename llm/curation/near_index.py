"""An index of documents with which later data can be compared: a folder, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from llm.curation.base import Corpus
from llm.files import read_json, sha256_file, write_json
from llm.types import ConfigError

FORMAT = 1


@dataclass(frozen=True)
class Part:
    """Two files of an index: `id, text` of documents, and the notes on them."""

    documents: Path
    notes: Path


def check(path: str, settings: dict[str, Any], key: str = "index") -> dict[str, Any]:
    """What the index says of itself.

    Raises:
        ConfigError: there is none, it is broken, or its documents were cut and hashed otherwise.
    """
    try:
        found = read_json(Path(path) / "index.json")
        same = {name: found["settings"][name] for name in settings}
        whole = found["format"] == FORMAT and all(
            (Path(path) / name).stat().st_size == size for name, size in found["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(key, path, "no index; it is a folder that save_index wrote") from None
    if not whole:
        raise ConfigError(key, path, "a damaged index, or one of another version; write it again")
    for name, value in settings.items():
        if same[name] != value:
            raise ConfigError(key, path, f"was made with {name}={same[name]}, and here it is {value}")
    return dict(found)


def check_target(path: str, settings: dict[str, Any]) -> None:
    """Whether an index may be written there.

    Raises:
        ConfigError: something else is there, or an index of other settings. Key `save_index`.
    """
    if Path(path).exists():
        check(path, settings, "save_index")


def parts(path: str, settings: dict[str, Any]) -> list[Part]:
    """The files of an index, in the order of its documents.

    Raises:
        ConfigError: as `check`.
    """
    folder, n_parts = Path(path), int(check(path, settings)["n_parts"])
    return [
        Part(folder / f"{number:05}.documents.parquet", folder / f"{number:05}.notes.parquet")
        for number in range(n_parts)
    ]


def write(path: str, settings: dict[str, Any], corpus: Corpus, gone: pl.DataFrame) -> None:
    """An index of the documents that have notes and are not `gone` (`shard`, `row`).

    Raises:
        ConfigError: as `check_target`.
    """
    check_target(path, settings)
    target = Path(path)
    new = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        n_documents = 0
        for number, (shard, survey) in enumerate(zip(corpus.shards, corpus.surveys, strict=True)):
            notes = pl.read_parquet(survey, glob=False).drop("priority", strict=False)
            left = notes.join(gone.filter(shard=number), on="row", how="anti", maintain_order="left")
            texts = pl.read_parquet(shard, columns=["id", "text"], glob=False)[left["row"]]
            texts.write_parquet(new / f"{number:05}.documents.parquet", compression="zstd")
            numbered = left.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"))
            numbered.write_parquet(new / f"{number:05}.notes.parquet")
            n_documents += left.height
        files = {one.name: one.stat().st_size for one in sorted(new.iterdir())}
        told = {
            "format": FORMAT,
            "settings": settings,
            "n_documents": n_documents,
            "n_parts": len(corpus.shards),
            "files": files,
            "sha256": {name: sha256_file(new / name) for name in files},
        }
        write_json(new / "index.json", told)
        _put(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _put(new: Path, target: Path) -> None:
    """`new` becomes `target`; a folder cannot replace another that is not empty, so that one steps aside."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
