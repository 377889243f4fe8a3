# ruff: noqa: RUF001 (letters of other scripts are what this is about)
"""Readers of text, JSON lines, tables and parquet give documents, and tell of all that is none."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import json
import lzma
import os
import random
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm.curation import files
from llm.curation.characters import is_binary
from llm.curation.csv_files import CsvFiles
from llm.curation.jsonl import JsonLines, Parser
from llm.curation.parquet import Parquet
from llm.curation.text import TextFiles
from llm.types import ConfigError
from tests.curation.reading import read, rows, told

COMPRESS = {
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
    ".bz2": lambda data: bz2.compress(data, 1),
    ".xz": lambda data: lzma.compress(data, preset=0),
}


# ----------------------------------------------------------------------------- text


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
    paragraphs = TextFiles(str(tmp_path / "a.txt"), per="paragraph", domain="d", licence="MIT")
    assert paragraphs.documents().collect().rows()[1] == (("a.txt#1", "two", "a.txt", "d", "MIT", "a.txt:3"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("per", ["file", "paragraph"])
def test_encodings_are_repaired(tmp_path: Path, encoding: str, per: str):
    text = "Die Bäume, die Häuser und „schöne“ Straßen: alles für dich, äußerst günstig."
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode(encoding))
    (found,) = read(TextFiles(str(path), per=per)).to_dicts()
    assert (found["text"], found["keep"]) == (text, True)
    assert found["reason"] == (None if encoding == "utf-8-sig" else "reencoded")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Все люди рождаются свободными и равными в своём достоинстве и правах."),
        ("shift_jis", "すべての人間は、生まれながらにして自由であり、尊厳と権利とについて平等である。"),
        ("euc_jp", "国境の長いトンネルを抜けると雪国であった。夜の底が白くなった。"),
        ("gb18030", "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"),
    ],
)
def test_encodings_are_detected(tmp_path: Path, encoding: str, text: str):
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode(encoding))
    assert told(TextFiles(str(path))) == [("x.txt", text, True, "reencoded")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ("x.txt#empty", "", False, "empty")),
        (b"  \n", ("x.txt#empty", "", False, "empty")),
        (b"PK\x03\x04\0\0", ("x.txt", "PK\x03\x04", False, "not_text")),
        (b"a word and\0 more", ("x.txt", "a word and more", True, "nul_bytes")),
        (
            "gr\u00fcn, blau \u00e4 \u00f6".encode() + b"\xff",
            ("x.txt", "grün, blau ä ö\ufffd", True, "undecodable"),
        ),
        ("äöü".encode() * 9 + b"\xff" * 9, ("x.txt", "äöü" * 9 + "\ufffd" * 9, True, "undecodable")),
        (b"x" * 2000, ("x.txt", "x" * 500, False, "too_large")),
    ],
)
def test_text_bad_input(tmp_path: Path, content: bytes, expected: tuple):
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    assert told(TextFiles(str(path), max_document_bytes=1000)) == [expected]


@pytest.mark.parametrize("size", [500, 8192, 50_000])
def test_random_bytes_are_no_text(size: int):
    drawn = random.Random(0)
    assert all(is_binary(drawn.randbytes(size)) for _ in range(100))


def test_nothing_is_normalised(tmp_path: Path):
    text = "שלום \u202bעולם\u202c e\u0301 \u0e19\u0e49\u0e33 ﬁ \u2028 \r\n\ttail  \n"
    (tmp_path / "x.txt").write_bytes(text.encode())
    (tmp_path / "x.jsonl").write_text(
        json.dumps({"text": text}) + "\n" + json.dumps({"text": text}, ensure_ascii=False)
    )
    pl.DataFrame({"text": [text]}).write_parquet(tmp_path / "x.parquet")
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], [text]])
    for reader in (TextFiles, JsonLines, Parquet, CsvFiles):
        found = read(reader(str(tmp_path)))
        assert set(found["text"]) == {text}, reader
        assert found["reason"].null_count() == found.height


def test_paragraphs_of_a_large_file_are_those_of_a_small_one(tmp_path: Path, monkeypatch):
    text = "\r\n\r\n".join(
        f"paragraph {i}\r\nof {i % 3 * 'some '}lines" + "\r\n" * (i % 3) for i in range(500)
    )
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode())
    whole = read(TextFiles(str(path), per="paragraph"))
    assert whole.height == 500
    lines = text.split("\r\n")
    for provenance, one in whole.select("provenance", "text").rows():
        assert lines[int(provenance.rpartition(":")[2]) - 1] == one.split("\n")[0]
    monkeypatch.setattr(files, "PART_BYTES", 3000)
    monkeypatch.setattr("llm.curation.streams.BLOCK_BYTES", 700)
    cut = TextFiles(str(path), per="paragraph")
    assert len(cut.parts()) > 3
    assert read(cut).equals(whole)


# ----------------------------------------------------------------------------- compressed files


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


# ----------------------------------------------------------------------------- JSON lines


def test_missing_file_empty_folder_and_pattern_without_match(tmp_path: Path):
    for path in (tmp_path / "no.txt", tmp_path, tmp_path / "*.txt"):
        for reader in (TextFiles, JsonLines, Parquet, CsvFiles):
            with pytest.raises(ConfigError) as caught:
                reader(str(path))
            assert caught.value.key == "path"


def test_jsonl(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    lines = [
        {"text": "a", "url": "u1", "kind": "web", "terms": "CC0-1.0", "n": 3},
        {"text": "b\u2028c", "url": None, "kind": "book", "n": None},
    ]
    path.write_text(
        "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n", encoding="utf-8"
    )
    assert rows(JsonLines(str(path))) == [
        ("x.jsonl:1", "a", "x.jsonl", "text"),
        ("x.jsonl:2", "b\u2028c", "x.jsonl", "text"),
    ]
    named = JsonLines(
        str(path),
        id="n",
        domain_column="kind",
        licence="MIT",
        licence_column="terms",
        provenance_column="url",
    )
    assert named.documents().collect().rows() == [
        ("3", "a", "x.jsonl", "web", "CC0-1.0", "u1"),
        ("x.jsonl:2", "b\u2028c", "x.jsonl", "book", "MIT", "x.jsonl:2"),
    ]


@pytest.mark.parametrize(
    ("line", "text", "reason"),
    [
        (b'{"text": "b"', '{"text": "b"', "broken_json"),
        (b'{"a":' * 100_000, '{"a":' * 100, "broken_json"),
        (b"\0\0\0", "", "broken_json"),
        (b'["b"]', '["b"]', "no_object"),
        (b"12", "12", "no_object"),
        (b'{"body": "b"}', '{"body": "b"}', "no_text"),
        (b'{"text": 3}', '{"text": 3}', "no_text"),
        (b'{"text": null}', '{"text": null}', "no_text"),
    ],
)
def test_jsonl_tells_of_bad_lines(tmp_path: Path, line: bytes, text: str, reason: str):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + line + b'\n{"text": "c"}\r\n')
    assert told(JsonLines(str(path))) == [
        ("x.jsonl:1", "a", True, None),
        ("x.jsonl:2", text, False, reason),
        ("x.jsonl:3", "c", True, None),
    ]


@pytest.mark.parametrize(
    ("line", "text", "reason"),
    [
        (rb'{"text": "a\ud800b", "x": "\udc00"}', "a\ufffdb", "lone_surrogates"),
        (rb'{"text": "\ud83d\ude00"}', "😀", None),
        (rb'{"text": "a\u0000b"}', "ab", "nul_bytes"),
        (b'{"text": "caf\xe9 \x93au lait\x94"}', "café “au lait”", "reencoded"),
        (b'{"text": "gr\xc3\xbcn", "x": "\xe9"}', "grün", None),
        (b'{"text": "gr\xc3\xbcn \xff"}', "grün \ufffd", "undecodable"),
        (b'{"text": "a\tb"}', "a\tb", None),
        (b'{"text": "a", "x": NaN, "y": 1e999}', "a", None),
    ],
)
def test_jsonl_repairs(tmp_path: Path, line: bytes, text: str, reason: str | None):
    path = tmp_path / "x.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + line)
    assert told(JsonLines(str(path))) == [("x.jsonl:1", text, True, reason)]


def test_jsonl_in_utf16(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_bytes('{"text": "Ā\u0a0a"}\n{"text": "b"}\n'.encode("utf-16"))
    assert told(JsonLines(str(path))) == [
        ("x.jsonl:1", "Ā\u0a0a", True, "reencoded"),
        ("x.jsonl:2", "b", True, "reencoded"),
    ]


@pytest.mark.parametrize("key", ["text", "id", "domain_column", "licence_column", "provenance_column"])
def test_a_column_that_no_row_has(tmp_path: Path, key: str):
    (tmp_path / "a.jsonl").write_text('broken\n{"body": "x", "text": 3}\n')
    (tmp_path / "b.jsonl").write_text('{"other": "x"}\n')
    with pytest.raises(ConfigError, match="body, text, other") as caught:
        JsonLines(str(tmp_path), **{key: "missing"}).parts()
    assert (caught.value.key, caught.value.value) == (key, "missing")
    assert [row[3] for row in told(JsonLines(str(tmp_path), text="other"))] == [
        "broken_json",
        "no_text",
        None,
    ]


def test_too_large_a_line_among_others(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("llm.curation.streams.BLOCK_BYTES", 1000)
    large = json.dumps({"text": "y" * 12_000})
    lines = ['{"text": "a"}', large, '{"text": "b"}', large[:3000], '{"text": "c"}', large]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines))
    found = read(JsonLines(str(path), max_document_bytes=2000))
    assert found["reason"].to_list() == [None, "too_large", None, "too_large", None, "too_large"]
    assert found["id"].to_list() == [f"x.jsonl:{i}" for i in range(1, 7)]
    assert found["text"].to_list()[1] == large[:500]
    assert [round(size) for size in found["score"].drop_nulls()] == [len(large) + 1, 3001, len(large)]


def test_a_line_of_60_megabytes_is_not_held(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "a"}\n{"text": "')
        for _ in range(60):
            file.write(b"y" * 1_000_000)
        file.write(b'"}\n{"text": "b"}\n')
    program = """
import resource, sys
from llm.curation.jsonl import JsonLines
source = JsonLines(sys.argv[1], max_document_bytes=1_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = [row for part in source.parts() for frame in source.read(part) for row in frame["reason"]]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, found)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    grown, found = done.stdout.split(maxsplit=1)
    assert found.strip() == "[None, 'too_large', None]"
    assert int(grown) < 40, "megabytes"


def test_a_large_file_is_cut_between_lines(tmp_path: Path, monkeypatch):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"text": "z" * (i * 37 % 900)}) + "\n" for i in range(300)))
    whole = read(JsonLines(str(path)))
    monkeypatch.setattr(files, "PART_BYTES", 10_000)
    monkeypatch.setattr("llm.curation.streams.BLOCK_BYTES", 900)
    cut = JsonLines(str(path))
    assert len(cut.parts()) > 8
    assert read(cut).equals(whole)


def test_small_files_share_a_part(tmp_path: Path, monkeypatch):
    for i in range(100):
        (tmp_path / f"{i:03}.txt").write_text("x" * 100)
    monkeypatch.setattr(files, "PART_BYTES", 1000)
    source = TextFiles(str(tmp_path))
    assert source.parts() == [f"{i:03}.txt+9" for i in range(0, 100, 10)]
    assert read(source)["id"].to_list() == [f"{i:03}.txt" for i in range(100)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "a"]) | st.text(), inner)
    ),
    max_leaves=5,
)
LINES = (
    st.binary(max_size=40)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.builds(
        lambda value, at, more: (
            (raw := json.dumps({"text": value}, ensure_ascii=False).encode("utf-8", "replace"))[:at]
            + more
            + raw[at:]
        ),
        st.text(),
        st.integers(0, 60),
        st.binary(max_size=3),
    )
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=60)
@given(st.lists(LINES, max_size=8))
@example([b"\xff\xfe", b"\xef\xbb\xbf", b"\x85", b"\x1c"])
def test_fuzz_every_line_is_a_document_or_told_of(folder: Path, lines: list[bytes]):
    path = folder / "x.jsonl"
    data = b'{"text": "first"}\n' + b"\n".join(lines)
    path.write_bytes(data)
    found = read(JsonLines(str(path)))
    assert found.height == sum(1 for line in data.split(b"\n") if line.strip())
    assert found["id"].is_unique().all()


@given(LINES)
@example(b'{"text": ' + b"1" * 5000 + b"}")
@example(b'{"text": "a"}\x00')
@example(b'{"text": "a", "text": "b"}')
@example(b'{"a": 1E400, "text": "\\u00e9"}')
def test_fuzz_both_routes_say_the_same(line: bytes):
    fast, mild = Parser(["text"]).parse(line), Parser(["text"]).parse_mildly(line)
    # as text, for NaN is no NaN
    assert repr(fast) == repr(mild)


# ----------------------------------------------------------------------------- tables


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


# ----------------------------------------------------------------------------- parquet


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


@pytest.mark.parametrize("damage", ["tail", "middle", "empty", "text"])
def test_a_corrupt_parquet_among_others(tmp_path: Path, damage: str):
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
    reason = "empty" if damage == "empty" else "corrupt"
    assert told(Parquet(str(path))) == [(f"x.parquet#{reason}", "", False, reason)]
    pl.DataFrame({"text": ["sound"]}).write_parquet(tmp_path / "y.parquet")
    assert [row[1:] for row in told(Parquet(str(tmp_path)))] == [("", False, reason), ("sound", True, None)]


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


# ----------------------------------------------------------------------------- all


def test_fingerprint_follows_content_and_settings(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = TextFiles(str(path)).fingerprint()
    assert first == TextFiles(str(path)).fingerprint()
    assert first != TextFiles(str(path), domain="other").fingerprint()
    assert first != TextFiles(str(path), max_document_bytes=7).fingerprint()
    path.write_text("one two")
    assert first != TextFiles(str(path)).fingerprint()


def test_a_file_that_may_not_be_read_or_is_gone(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "x"}')
    source = JsonLines(str(tmp_path))
    assert source.parts() == ["a.jsonl+1"]
    (tmp_path / "a.jsonl").unlink()
    found = pl.concat(source.read("a.jsonl+1"))
    assert found.select("id", "keep", "reason").rows() == [
        ("a.jsonl#unreadable", False, "unreadable"),
        ("b.jsonl:1", True, None),
    ]


def test_real_jsonl(shared_dir: Path):
    found = rows(JsonLines(str(shared_dir / "data" / "c4-demo")))
    assert len(found) == 300
    assert all(row[1] for row in found)


def test_odd_names_in_a_folder(tmp_path: Path):
    for name in (b"plain.jsonl", b"UPPER.JSONL", b"not_utf8_\xff.jsonl"):
        (tmp_path / os.fsdecode(name)).write_text('{"text": "a text"}\n')
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "nowhere")
    source = JsonLines(str(tmp_path))
    assert source.fingerprint() == JsonLines(str(tmp_path)).fingerprint()
    rows = pl.concat([frame for part in source.parts() for frame in source.read(part)])
    assert rows["keep"].sum() == 3
    assert rows.filter(~pl.col("keep"))["reason"].to_list() == ["unreadable"]
