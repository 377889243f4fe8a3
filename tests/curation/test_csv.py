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


def test_blank_lines_within_quotes_stay(tmp_path: Path):
    (tmp_path / "x.csv").write_bytes(b'n,text\r\n1,"one\n\ntwo"\n\n2,b\n')
    source = CsvFiles(str(tmp_path))
    assert told(source) == [("x.csv:2", "one\n\ntwo", True, None), ("x.csv:6", "b", True, None)]


@pytest.mark.parametrize("header", ["text\rs", "text" * 300_000], ids=["broken", "too_large"])
def test_a_row_is_no_header_because_the_first_is_broken(tmp_path: Path, header: str):
    (tmp_path / "x.csv").write_bytes(f"n,{header}\n1,text\n2,b\n".encode())
    (tmp_path / "y.csv").write_text("n,text\n1,a\n")
    found = told(CsvFiles(str(tmp_path), max_document_bytes=100))
    assert [row[0] for row in found] == ["x.csv:1", "x.csv#broken_csv", "y.csv:2"]
    assert [row[2] for row in found] == [False, False, True]


def test_a_quote_that_nothing_closes(tmp_path: Path):
    (tmp_path / "x.csv").write_text('n,text\n1,a\n2,"b\n3,c\n')
    assert told(CsvFiles(str(tmp_path))) == [
        ("x.csv:2", "a", True, None),
        ("x.csv:3", "2,b\n3,c\n", False, "broken_csv"),
    ]


def test_a_ragged_row_gives_its_reason_to_no_other(tmp_path: Path):
    (tmp_path / "x.csv").write_bytes(b"n,text\n1,caf\xe9,b\n2,plain\n")
    assert [row[3] for row in told(CsvFiles(str(tmp_path)))] == ["ragged_row", None]


@pytest.mark.parametrize("delimiter", [";;", "", '"', "\n"])
def test_a_delimiter_is_one_character(tmp_path: Path, delimiter: str):
    (tmp_path / "x.csv").write_text("text\n")
    with pytest.raises(ConfigError) as caught:
        CsvFiles(str(tmp_path), delimiter=delimiter)
    assert (caught.value.key, caught.value.value) == ("delimiter", delimiter)
