"""Shards: the same ids as one file, whole or not there, not encoded twice, and read as if they were one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.data import shards
from llm.data.documents import Documents
from llm.data.mapped import ShardedTokens, document_bounds, open_packed
from llm.data.packing import pack
from llm.data.shards import Source, cut, pack_shards
from llm.inputs import digest
from llm.tokenizers import byte

BYTES = byte.train([])
TEXTS: list[str | None] = [f"document {i} " + "é" * (i % 7) for i in range(60)]
TEXTS[3:5] = ["", None]


def source(directory: Path, texts: list[str | None] = TEXTS) -> Source:
    path = directory / "corpus.parquet"
    pl.DataFrame({"text": texts}, schema={"text": pl.String}).write_parquet(path)
    BYTES.save(directory / "tokenizer")
    return Source(str(path), "train", digest([path], key="train"))


def packed(directory: Path, of: Source, **more: Any) -> Any:
    return pack_shards(directory / "train", of, directory / "tokenizer", shard_bytes=200, **more)


def contents(directory: Path) -> dict[str, bytes]:
    found = [directory / "train.json", *(directory / "train").iterdir()]
    return {file.name: file.read_bytes() for file in found}


def test_shards_are_the_one_file_in_parts(tmp_path: Path) -> None:
    done: list[int] = []
    info = packed(tmp_path, source(tmp_path), advance=done.append)
    whole = pack(tmp_path / "whole", Documents(str(tmp_path / "corpus.parquet"), key="train"), BYTES)
    one, _ = open_packed(tmp_path / "whole")
    many, read = open_packed(tmp_path / "train")
    assert isinstance(many, ShardedTokens)
    assert many[:].tolist() == one.tolist()  # type: ignore[union-attr]
    assert read == info
    for name in ("n_tokens", "n_bytes", "n_documents", "dtype", "vocab_size"):
        assert getattr(info, name) == getattr(whole, name)
    assert sum(done) == info.n_bytes == sum(len((text or "").encode()) for text in TEXTS)
    listed = json.loads((tmp_path / "train.json").read_text())["shards"]
    assert len(listed) == len(list((tmp_path / "train").glob("*.bin"))) > 3
    for name in ("n_tokens", "n_bytes", "n_documents"):
        assert sum(shard[name] for shard in listed) == getattr(info, name)
    assert all(shard["n_bytes"] <= 200 for shard in listed)
    bounds = document_bounds(tmp_path / "train")
    assert bounds is not None
    assert bounds.tolist() == np.fromfile(tmp_path / "whole.idx", "<u8").tolist()
    alone, _ = open_packed(tmp_path / "train" / "00001")  # a shard is a packed file of its own
    assert alone.tolist() == one[listed[0]["n_tokens"] :][: len(alone)].tolist()  # type: ignore[union-attr]


@given(row_bytes=st.lists(st.integers(0, 30), max_size=40), shard_bytes=st.integers(1, 50))
def test_rows_are_cut_by_their_bytes(row_bytes: list[int], shard_bytes: int) -> None:
    parts = cut(np.array(row_bytes, dtype=np.int64), shard_bytes)
    rows = [row for first, n in parts for row in range(first, first + n)]
    assert rows == list(range(len(row_bytes)))
    sizes = [sum(row_bytes[first : first + n]) for first, n in parts]
    assert all(size <= shard_bytes or n == 1 for size, (_, n) in zip(sizes, parts, strict=True))
    for size, (first, n) in zip(sizes[:-1], parts[:-1], strict=True):  # one row more would be too much
        assert size + row_bytes[first + n] > shard_bytes


def test_a_killed_one_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = source(tmp_path)
    packed(tmp_path, of)
    want = contents(tmp_path)
    for file in [tmp_path / "train.json", *(tmp_path / "train").iterdir()]:
        file.unlink()

    encoded: list[str] = []
    really = shards.pack

    def until_the_third(stem: Path, *rest: Any) -> Any:
        if len(encoded) == 2:
            raise KeyboardInterrupt
        encoded.append(stem.name)
        return really(stem, *rest)

    monkeypatch.setattr(shards, "pack", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        packed(tmp_path, of)
    assert not (tmp_path / "train.json").exists()
    assert encoded == ["00000", "00001"]

    # The second was cut off between its ids and its mark, and a power cut leaves what was being written.
    (tmp_path / "train" / "00001.done.json").unlink()
    (tmp_path / "train" / ".00002.bin.1.tmp").write_bytes(b"half")
    monkeypatch.setattr(shards, "pack", lambda stem, *rest: encoded.append(stem.name) or really(stem, *rest))
    encoded.clear()
    done: list[int] = []
    info = packed(tmp_path, of, advance=done.append)
    assert "00000" not in encoded
    assert encoded == [f"{n:05d}" for n in range(1, len(encoded) + 1)]
    assert contents(tmp_path) == want
    assert sum(done) == info.n_bytes

    encoded.clear()
    packed(tmp_path, of)
    assert encoded == []
    damaged = tmp_path / "train" / "00002.bin"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\7")
    packed(tmp_path, of)
    assert encoded == ["00002"]
    assert contents(tmp_path) == want


def test_another_source_or_tokenizer_or_cut_keeps_nothing(tmp_path: Path) -> None:
    packed(tmp_path, source(tmp_path))
    n_files = len(contents(tmp_path))
    other = source(tmp_path, [f"another {i}" for i in range(10)])
    packed(tmp_path, other)
    assert len(contents(tmp_path)) == 1 + 4 * 1 < n_files
    tokens, _ = open_packed(tmp_path / "train")
    assert BYTES.decode(tokens[:19].tolist()) == "another 0<|endoftext|>another 1"


def test_processes_write_the_same_bytes(tmp_path: Path) -> None:
    of = source(tmp_path)
    packed(tmp_path, of)
    alone = contents(tmp_path)
    for file in (tmp_path / "train").iterdir():
        file.unlink()
    packed(tmp_path, of, n_workers=2)
    assert contents(tmp_path) == alone
