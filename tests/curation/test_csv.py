"""Rows of tables become documents, and all that is none is told of."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import pytest

from llm.curation.csv_files import CsvFiles
from llm.types import ConfigError
from tests.curation.reading import read, told


def test_csv(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_bytes(
        codecs.BOM_UTF8
        + b"id,text,kind\r\n"
        + b'1,"two\r\nlines, ""quoted""",web\r\n\r\n2,short\r\n3,a,b,c\r\n4,caf\xe9,book\r\n5,n\0ul,\r\n'
    )
    source = CsvFiles(str(path), id="id", domain_column="kind")
    assert told(source) == [
        ("1", 'two\r\nlines, "quoted"', True, None),
        ("x.csv:5", "2,short", False, "ragged_row"),
        ("x.csv:6", "3,a,b,c", False, "ragged_row"),
        ("4", "café", True, "reencoded"),
        ("5", "nul", True, "nul_bytes"),
    ]
    assert read(source)["provenance"].to_list() == [f"x.csv:{line}" for line in (2, 5, 6, 7, 8)]
    with pytest.raises(ConfigError, match="id, text, kind") as caught:
        CsvFiles(str(path), text="body").parts()
    assert caught.value.key == "text"


def test_tsv_without_header_and_compressed(tmp_path: Path):
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress(b"1\ta, b\n2\tc\n"))
    source = CsvFiles(str(tmp_path), header=["n", "text"])
    assert told(source) == [("x.tsv.gz:1", "a, b", True, None), ("x.tsv.gz:2", "c", True, None)]


def test_csv_huge_fields_and_open_quotes(tmp_path: Path):
    path = tmp_path / "x.csv"
    lines = ["text", "a" * 150_000, "b" * 250_000, "c", '"open', *["swallowed " * 100] * 250, "end", ""]
    path.write_text("\n".join(lines))
    found = read(CsvFiles(str(path), max_document_bytes=200_000))
    assert found["reason"].to_list()[:4] == [None, "too_large", None, "too_large"]
    assert found["text"].str.len_bytes().to_list()[0] == 150_000
    assert found["text"].to_list()[-1] == "end", "it goes on behind what the open quote swallowed"
