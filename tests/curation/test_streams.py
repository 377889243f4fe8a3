"""Compressed files are unfolded on the way, whole or as far as they go."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
from pathlib import Path

import polars as pl
import pytest
import zstandard

from llm.curation.csv_files import CsvFiles
from llm.curation.jsonl import JsonLines
from llm.curation.streams import BLOCK_BYTES, blocks
from llm.curation.text import TextFiles
from tests.curation.reading import read, told

COMPRESS = {
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
    ".bz2": lambda data: bz2.compress(data, 1),
    ".xz": lambda data: lzma.compress(data, preset=0),
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_members_one_after_the_other(tmp_path: Path, suffix: str):
    compress = COMPRESS[suffix]
    lines = [json.dumps({"text": f"{i} " + "word " * (i % 900)}) + "\n" for i in range(600)]
    data = b"".join(compress("".join(lines[at : at + 200]).encode()) for at in range(0, 600, 200))
    (tmp_path / f"x.jsonl{suffix}").write_bytes(data)
    found = read(JsonLines(str(tmp_path)))
    assert found["text"].to_list() == [json.loads(line)["text"] for line in lines]
    assert found["reason"].null_count() == found.height


def test_names_in_capitals(tmp_path: Path):
    (tmp_path / "A.TXT.GZ").write_bytes(gzip.compress(b"a text"))
    assert told(TextFiles(str(tmp_path))) == [("A.TXT.GZ", "a text", True, None)]
    (tmp_path / "A.TSV.GZ").write_bytes(gzip.compress(b"n\ttext\n1\ta, b\n"))
    assert told(CsvFiles(str(tmp_path))) == [("A.TSV.GZ:2", "a, b", True, None)]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_torn_file_keeps_what_was_read(tmp_path: Path, suffix: str):
    drawn = random.Random(0)
    texts = ["".join(drawn.choices("abcdefghij ", k=300)) for _ in range(3000)]
    data = COMPRESS[suffix]("".join(json.dumps({"text": text}) + "\n" for text in texts).encode())
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(data[: len(data) * 3 // 4])
    found = read(JsonLines(str(path)))
    kept = found.filter("keep")["text"].to_list()
    assert len(kept) > 1000
    assert kept == texts[: len(kept)]
    assert found.filter(~pl.col("keep"))["reason"].to_list()[-1] == "truncated"
    path.write_bytes(b"no such format, as its name says" * 9)
    assert told(JsonLines(str(path)))[-1][2:] == (False, "corrupt")


@pytest.mark.parametrize("suffix", COMPRESS)
def test_bomb(tmp_path: Path, suffix: str, monkeypatch):
    monkeypatch.setattr("llm.curation.streams.EXPANSION_GRACE_BYTES", 1 << 20)
    line = json.dumps({"text": "a" * 1000}).encode() + b"\n"
    path = tmp_path / f"x.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](line * 4000))
    found = read(JsonLines(str(path), max_expansion=50))
    assert found.filter(~pl.col("keep"))["reason"].to_list()[-1] == "decompression_limit"
    assert found.height < 4000
    assert read(JsonLines(str(path), max_expansion=1e6)).height == 4000
    limited = read(JsonLines(str(path), max_expansion=1e6, max_decompressed_bytes=2_000_000))
    assert limited["reason"].to_list()[-1] == "decompression_limit"
    assert limited["text"].str.len_bytes().sum() < 2_000_000


def test_a_kilobyte_of_bzip2_is_not_unfolded_at_once(tmp_path: Path):
    data = bz2.compress(bytes(1 << 25))
    assert len(data) < 1000
    (tmp_path / "x.bz2").write_bytes(data + bz2.compress(b"end"))
    found = list(blocks(tmp_path / "x.bz2"))
    assert sum(map(len, found)) == (1 << 25) + 3
    assert max(map(len, found)) <= 2 * BLOCK_BYTES


def test_zstd_with_a_long_window(tmp_path: Path):
    long = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    packed = zstandard.ZstdCompressor(compression_params=long).compressobj()
    (tmp_path / "x.txt.zst").write_bytes(packed.compress(b"a text") + packed.flush())
    assert told(TextFiles(str(tmp_path))) == [("x.txt.zst", "a text", True, None)]
