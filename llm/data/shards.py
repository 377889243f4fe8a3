"""A corpus's tokens in several packed files, written side by side, and read as if they were one.

Which documents a shard has is settled before anything is encoded, by the bytes of their texts, so shards can
be encoded in any order, by several processes, and those that are whole when a process is killed need not be
encoded again. Each is a packed file of its own (``train/00000.bin``, ``.idx``, ``.json``); ``train.json``
lists them in order, with their counts and digests.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm import files
from llm.data.documents import Documents
from llm.data.packing import (
    COUNTS,
    IDX_DTYPE,
    PackedInfo,
    digest_of_shards,
    id_dtype,
    pack,
    with_ending,
)
from llm.tokenizers.base import load
from llm.types import Tokenizer


@dataclass(frozen=True)
class Source:
    """Where the texts come from.

    Attributes:
        path: of the file, as `Documents` takes it.
        key: the config key to name in errors.
        digest: of the file's content.
    """

    path: str
    key: str
    digest: str


@dataclass(frozen=True)
class Part:
    """One shard to be: the rows of the source that are in it, and a digest of all its content depends on."""

    stem: Path
    first: int
    n_rows: int
    n_bytes: int
    made_from: str


def cut(row_bytes: NDArray[np.integer], shard_bytes: int) -> list[tuple[int, int]]:
    """First row and number of rows of each shard: at most `shard_bytes` of text, or a single row."""
    ends = np.cumsum(row_bytes, dtype=np.int64)
    parts: list[tuple[int, int]] = []
    first, before = 0, 0
    while first < len(ends):
        # As many rows as fit, and one at least.
        end = max(int(np.searchsorted(ends, before + shard_bytes, side="right")), first + 1)
        parts.append((first, end - first))
        first, before = end, int(ends[end - 1])
    return parts


def pack_shards(
    stem: Path,
    source: Source,
    tokenizer_directory: Path,
    *,
    shard_bytes: int,
    n_workers: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> PackedInfo:
    """Tokenises a corpus into shards of at most `shard_bytes` of text (more where one document has more).

    The bytes written are the same for every number of workers. Shards that an earlier call finished from the
    same source with the same tokenizer are verified and kept.

    Args:
        stem: of ``stem.json`` and the folder ``stem/``.
        source: the documents.
        tokenizer_directory: of a saved tokenizer.
        shard_bytes: UTF-8 bytes of text in a shard.
        n_workers: processes that encode, each with its share of the machine's threads.
        advance: called with the UTF-8 bytes done since the last call.
    """
    documents = Documents(source.path, key=source.key)
    tokenizer = load(tokenizer_directory)
    row_bytes = documents.row_bytes()
    made_with = _digest_of(tokenizer_directory)
    parts = []
    for number, (first, n_rows) in enumerate(cut(row_bytes, shard_bytes)):
        made_from = files.digest([source.digest, made_with, first, n_rows])
        n_bytes = int(row_bytes[first : first + n_rows].sum())
        parts.append(Part(stem / f"{number:05d}", first, n_rows, n_bytes, made_from))
    waiting = []
    for part in parts:
        if _is_done(part):
            advance(part.n_bytes)
        else:
            waiting.append(part)
    if n_workers == 1 or len(waiting) < 2:
        for part in waiting:
            _write(part, documents, tokenizer, advance)
    else:
        _in_processes(waiting, source, tokenizer_directory, n_workers, advance)
    return _conclude(stem, parts, tokenizer.vocab_size)


def _in_processes(
    parts: Sequence[Part],
    source: Source,
    tokenizer_directory: Path,
    n_workers: int,
    advance: Callable[[int], None],
) -> None:
    n_threads = max(1, len(os.sched_getaffinity(0)) // n_workers)
    # Fresh processes: a fork of one that has run threads may hang.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(n_workers, len(parts)), fresh, _prepare, (source, tokenizer_directory, n_threads)
    ) as pool:
        running = {pool.submit(_work, part): part for part in parts}
        try:
            for future in as_completed(running):
                future.result()
                advance(running[future].n_bytes)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_of_worker: dict[str, Any] = {}


def _prepare(source: Source, tokenizer_directory: Path, n_threads: int) -> None:
    os.environ["RAYON_NUM_THREADS"] = str(n_threads)  # read when the library first encodes
    _of_worker["documents"] = Documents(source.path, key=source.key)
    _of_worker["tokenizer"] = load(tokenizer_directory)


def _work(part: Part) -> None:
    _write(part, _of_worker["documents"], _of_worker["tokenizer"], lambda _: None)


def _write(part: Part, documents: Documents, tokenizer: Tokenizer, advance: Callable[[int], None]) -> None:
    info = pack(part.stem, documents.rows(part.first, part.n_rows), tokenizer, advance)
    # Last: a shard without it is not whole, or not of this source and tokenizer.
    mark = {"made_from": part.made_from, "sha256": info.sha256}
    files.write_json(with_ending(part.stem, ".done.json"), mark)


def _is_done(part: Part) -> bool:
    """Whether the shard's files are those that `_write` would write."""
    try:
        mark = files.read_json(with_ending(part.stem, ".done.json"))
        info = PackedInfo(**files.read_json(with_ending(part.stem, ".json")))
        index = with_ending(part.stem, ".idx").stat().st_size
        return (
            mark == {"made_from": part.made_from, "sha256": info.sha256}
            and index == (info.n_documents + 1) * IDX_DTYPE.itemsize
            and files.sha256_file(with_ending(part.stem, ".bin")) == info.sha256
        )
    except (OSError, ValueError, TypeError):
        return False


def _conclude(stem: Path, parts: Sequence[Part], vocab_size: int) -> PackedInfo:
    """Writes ``stem.json``, the list of the shards and their sums."""
    shards = []
    for part in parts:
        info = files.read_json(with_ending(part.stem, ".json"))
        counts = {name: info[name] for name in (*COUNTS, "sha256")}
        shards.append({"file": f"{stem.name}/{part.stem.name}", **counts})
    whole = PackedInfo(
        dtype=id_dtype(vocab_size).name,
        vocab_size=vocab_size,
        sha256=digest_of_shards([shard["sha256"] for shard in shards]),
        **{key: sum(shard[key] for shard in shards) for key in COUNTS},
    )
    files.write_json(with_ending(stem, ".json"), {**asdict(whole), "shards": shards})
    names = {part.stem.name for part in parts}
    for file in stem.iterdir():  # of an earlier way to cut the corpus
        if file.name.partition(".")[0] not in names:
            file.unlink()
    return whole


def _digest_of(directory: Path) -> str:
    found = sorted(path for path in directory.rglob("*") if path.is_file())
    return files.digest({path.relative_to(directory).as_posix(): files.sha256_file(path) for path in found})
