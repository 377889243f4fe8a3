"""Readers give documents, and name the file, line or column when they cannot."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from llm.curation.base import DOCUMENT_COLUMNS
from llm.curation.jsonl import JsonLines
from llm.curation.parquet import Parquet
from llm.curation.text import TextFiles
from llm.types import ConfigError


def rows(source) -> list[tuple]:
    frame = source.documents().collect()
    assert tuple(frame.columns) == DOCUMENT_COLUMNS
    return frame.rows()


def test_text_file_folder_and_pattern(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.txt").write_text("one\n\ntwo", encoding="utf-8")
    (tmp_path / "deep" / "b.txt.gz").write_bytes(gzip.compress("zwölf".encode()))
    (tmp_path / "c.bin").write_bytes(b"\0")
    assert rows(TextFiles(str(tmp_path / "a.txt"))) == [("a.txt", "one\n\ntwo", "a.txt", "text")]
    assert [row[:2] for row in rows(TextFiles(str(tmp_path)))] == [
        ("a.txt", "one\n\ntwo"),
        ("deep/b.txt.gz", "zwölf"),
    ]
    assert [row[1] for row in rows(TextFiles(str(tmp_path / "*.txt"), per="paragraph"))] == ["one", "two"]
    assert rows(TextFiles(str(tmp_path / "a.txt"), per="paragraph", domain="d"))[1] == (
        "a.txt#1",
        "two",
        "a.txt",
        "d",
    )


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"PK\x03\x04\0\0", "not a text file"),
        (b"caf\xe9 au lait", "not UTF-8"),
    ],
)
def test_text_bad_input(tmp_path: Path, content: bytes, mend: str):
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=mend) as caught:
        TextFiles(str(path)).documents()
    assert caught.value.key == "path"
    assert str(path) in str(caught.value)


def test_missing_file_empty_folder_and_pattern_without_match(tmp_path: Path):
    for path in (tmp_path / "no.txt", tmp_path, tmp_path / "*.txt"):
        for reader in (TextFiles, JsonLines, Parquet):
            with pytest.raises(ConfigError) as caught:
                reader(str(path))
            assert caught.value.key == "path"


def test_torn_gzip(tmp_path: Path):
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"hello" * 1000)[:20])
    with pytest.raises(ConfigError, match="gzip"):
        TextFiles(str(path)).documents()


def test_jsonl(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    lines = [{"text": "a", "url": "u1", "kind": "web"}, {"text": "b\u2028c", "url": "u2", "kind": "book"}]
    path.write_text(
        "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n", encoding="utf-8"
    )
    assert rows(JsonLines(str(path))) == [
        ("x.jsonl:1", "a", "x.jsonl", "text"),
        ("x.jsonl:2", "b\u2028c", "x.jsonl", "text"),
    ]
    named = JsonLines(str(path), id="url", domain_column="kind")
    assert rows(named) == [("u1", "a", "x.jsonl", "web"), ("u2", "b\u2028c", "x.jsonl", "book")]


@pytest.mark.parametrize(
    ("line", "key", "mend"),
    [
        ('{"text": "b"', "path", "line 2: not valid JSON"),
        ('["b"]', "path", "line 2: a JSON object is needed"),
        ('{"body": "b"}', "text", "no such column"),
        ('{"text": 3}', "text", "is not text"),
    ],
)
def test_jsonl_names_file_and_line(tmp_path: Path, line: str, key: str, mend: str):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=mend) as caught:
        JsonLines(str(path)).documents()
    assert caught.value.key == key
    assert str(path) in str(caught.value)
    assert key == "path" or f"{path}:2" in str(caught.value)


def test_parquet(tmp_path: Path):
    frame = pl.DataFrame({"body": ["a", None, "c"], "n": [1, 2, 3], "kind": ["x", "y", "z"]})
    frame.write_parquet(tmp_path / "x.parquet")
    found = rows(Parquet(str(tmp_path), text="body"))
    assert found == [("x.parquet:0", "a", "x.parquet", "text"), ("x.parquet:2", "c", "x.parquet", "text")]
    found = rows(Parquet(str(tmp_path), text="body", id="n", domain_column="kind"))
    assert found == [("1", "a", "x.parquet", "x"), ("3", "c", "x.parquet", "z")]


@pytest.mark.parametrize("damage", ["tail", "middle", "empty", "text"])
def test_corrupt_parquet(tmp_path: Path, damage: str):
    path = tmp_path / "x.parquet"
    pl.DataFrame({"text": [f"text number {i}" for i in range(2000)]}).write_parquet(path)
    data = bytearray(path.read_bytes())
    if damage == "tail":
        data = data[:-100]
    elif damage == "middle":
        data[20:600] = bytes(580)
    elif damage == "empty":
        data = bytearray()
    else:
        data = bytearray(b"this is no parquet file at all")
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        Parquet(str(path)).documents()
    assert caught.value.key == "path"


def test_parquet_wrong_column(tmp_path: Path):
    pl.DataFrame({"body": ["a"], "n": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match="it has body, n") as caught:
        Parquet(str(tmp_path)).documents()
    assert caught.value.key == "text"
    with pytest.raises(ConfigError, match="not a column of text"):
        Parquet(str(tmp_path), text="n").documents()


def test_fingerprint_follows_content_and_settings(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = TextFiles(str(path)).fingerprint()
    assert first == TextFiles(str(path)).fingerprint()
    assert first != TextFiles(str(path), domain="other").fingerprint()
    path.write_text("one two")
    assert first != TextFiles(str(path)).fingerprint()


def test_real_jsonl(shared_dir: Path):
    found = rows(JsonLines(str(shared_dir / "data" / "c4-demo")))
    assert len(found) == 300
    assert all(row[1] for row in found)
