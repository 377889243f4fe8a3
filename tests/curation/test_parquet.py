"""Rows of parquet files become documents, and all that is none is told of."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm.curation import files
from llm.curation.parquet import Parquet
from llm.types import ConfigError
from tests.curation.reading import read, rows, told


def test_parquet(tmp_path: Path):
    frame = pl.DataFrame({"body": ["a", None, "c\0"], "n": [1, 2, None], "kind": ["x", "y", None]})
    frame.write_parquet(tmp_path / "x.parquet")
    assert told(Parquet(str(tmp_path), text="body")) == [
        ("x.parquet:0", "a", True, None),
        ("x.parquet:1", "", False, "no_text"),
        ("x.parquet:2", "c", True, "nul_bytes"),
    ]
    found = rows(Parquet(str(tmp_path), text="body", id="n", domain_column="kind"))
    assert found == [("1", "a", "x.parquet", "x"), ("x.parquet:2", "c", "x.parquet", "text")]


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["a", "b"])])
def test_a_parquet_file_of_categories(tmp_path: Path, kind: pl.DataType):
    frame = pl.DataFrame({"text": ["a", "b", None, "a"], "kind": ["x", "y", "x", "x"]})
    frame.with_columns(pl.col("text").cast(kind), pl.col("kind").cast(pl.Categorical)).write_parquet(
        tmp_path / "x.parquet"
    )
    found = read(Parquet(str(tmp_path / "x.parquet"), domain_column="kind"))
    assert found["text"].to_list() == ["a", "b", "", "a"]
    assert found.filter("keep")["domain"].to_list() == ["x", "y", "x"]


def test_a_parquet_file_of_numbers(tmp_path: Path):
    pl.DataFrame({"text": [1, 2]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match="not a column of text but of Int64"):
        Parquet(str(tmp_path / "x.parquet")).parts()


def test_parquet_in_ranges_of_rows(tmp_path: Path, monkeypatch):
    texts = [f"{i} " + "x" * (i % 300) for i in range(5000)]
    path = tmp_path / "x.parquet"
    pl.DataFrame({"text": texts}).write_parquet(path, row_group_size=700)
    monkeypatch.setattr(files, "PART_BYTES", 5000)
    monkeypatch.setattr("llm.curation.parquet.PART_BYTES", 5000)
    source = Parquet(str(path), max_document_bytes=250)
    assert len(source.parts()) > 2
    found = read(source)
    assert found["id"].to_list() == [f"x.parquet:{i}" for i in range(5000)]
    large = found.filter(pl.col("reason") == "too_large")
    assert large["score"].to_list() == [float(len(text)) for text in texts if len(text) > 250]
    assert found.filter("keep")["text"].to_list() == [text for text in texts if len(text) <= 250]


@pytest.mark.parametrize(
    ("damage", "place", "reason"),
    [
        ("tail", "#corrupt", "corrupt"),
        ("middle", ":0-1999", "corrupt"),
        ("empty", "#empty", "empty"),
        ("text", "#corrupt", "corrupt"),
    ],
)
def test_a_corrupt_parquet_among_others(tmp_path: Path, damage: str, place: str, reason: str):
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
    assert told(Parquet(str(path))) == [(f"x.parquet{place}", "", False, reason)]
    pl.DataFrame({"text": ["sound"]}).write_parquet(tmp_path / "y.parquet")
    assert [row[1:] for row in told(Parquet(str(tmp_path)))] == [("", False, reason), ("sound", True, None)]


def test_a_damaged_page_costs_no_other_rows(tmp_path: Path):
    path = tmp_path / "x.parquet"
    texts = [f"text number {i} {hash_of(i)}" for i in range(1000)]
    pl.DataFrame({"text": texts}).write_parquet(path, row_group_size=100, compression="uncompressed")
    data = bytearray(path.read_bytes())
    at = data.index(b"text number 450 ")
    data[at - 4 : at] = b"\xff\xff\xff\x7f"  # the length of the text
    path.write_bytes(data)
    found = read(Parquet(str(path)))
    (lost,) = found.filter(~pl.col("keep")).select("id", "reason", "score").rows()
    assert lost == ("x.parquet:400-499", "corrupt", 100.0)
    assert found.filter("keep")["text"].to_list() == texts[:400] + texts[500:]


def hash_of(number: int) -> str:
    """Makes texts different enough for no dictionary to be kept of them."""
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("bad", [{0}, {999}, {3, 4, 5, 600}, {17, 19}])
def test_texts_that_are_not_utf8_are_decoded(tmp_path: Path, bad: set[int], dictionary: bool):
    texts = [b"caf\xe9" if i in bad else f"text number {i}".encode() for i in range(1000)]
    kinds = [b"caf\xe9" if i == 7 else None for i in range(1000)]
    columns = {"text": pa.array(texts, pa.binary()).view(pa.string()), "n": range(1000)}
    columns |= {"kind": pa.array(kinds, pa.binary()).view(pa.string()), "nested": [[1]] * 1000}
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns), path, use_dictionary=dictionary, row_group_size=300)
    found = read(Parquet(str(path), id="n", domain_column="kind", licence_column="nested"))
    assert found["id"].to_list() == [str(i) for i in range(1000)]
    assert found["keep"].all()
    assert found["text"].to_list() == ["café" if i in bad else f"text number {i}" for i in range(1000)]
    assert [i for i, reason in enumerate(found["reason"]) if reason == "reencoded"] == sorted(bad)
    assert found["domain"].to_list() == ["café" if i == 7 else "text" for i in range(1000)]


@pytest.mark.parametrize("failure", [pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError])
def test_what_pyarrow_cannot_read_either(tmp_path: Path, monkeypatch, failure: type[Exception]):
    def refuse(*_: object):
        raise failure

    texts = [b"caf\xe9" if i == 5 else b"plain" for i in range(9)]
    table = pa.table({"text": pa.array(texts, pa.binary()).view(pa.string())})
    pq.write_table(table, tmp_path / "x.parquet", use_dictionary=False)
    monkeypatch.setattr("llm.curation.parquet.bytes_of_rows", refuse)
    found = read(Parquet(str(tmp_path / "x.parquet")))
    assert found.filter(~pl.col("keep")).select("id", "reason", "score").rows() == [
        ("x.parquet:5", "corrupt", 1.0)
    ]
    assert found.filter("keep").height == 8


def test_parquet_of_mixed_schemas_and_wrong_columns(tmp_path: Path):
    pl.DataFrame({"body": ["a"], "n": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match="body, n") as caught:
        Parquet(str(tmp_path)).parts()
    assert caught.value.key == "text"
    with pytest.raises(ConfigError, match="not a column of text"):
        Parquet(str(tmp_path), text="n").parts()
    pl.DataFrame({"n": ["words"], "id": [["nested"]]}).write_parquet(tmp_path / "y.parquet")
    assert told(Parquet(str(tmp_path), text="n", id="id")) == [
        ("x.parquet#no_text", "", False, "no_text"),
        ("y.parquet:0", "words", True, None),
    ]


def test_large_rows_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("llm.curation.parquet.FRAME_CHARS", 1 << 20)
    pl.DataFrame({"text": ["x" * 100_000] * 100}).write_parquet(tmp_path / "x.parquet")
    source = Parquet(str(tmp_path / "x.parquet"), max_document_bytes=1000)
    heights = [frame.height for part in source.parts() for frame in source.read(part)]
    assert sum(heights) == 100
    assert heights[0] == 16
    assert max(heights[1:]) <= 10


def test_a_link_that_leads_nowhere(tmp_path: Path):
    pl.DataFrame({"text": ["sound"]}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").symlink_to(tmp_path / "nowhere")
    assert told(Parquet(str(tmp_path))) == [
        ("a.parquet:0", "sound", True, None),
        ("b.parquet#unreadable", "", False, "unreadable"),
    ]
