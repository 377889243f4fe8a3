# ruff: noqa: RUF001 (letters of other scripts are what this is about)
"""Readers of text files, and what all readers of files share."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
from pathlib import Path

import polars as pl
import pytest

from llm.curation import files
from llm.curation.characters import is_binary
from llm.curation.csv_files import CsvFiles
from llm.curation.documents import Document, batched
from llm.curation.jsonl import JsonLines
from llm.curation.parquet import Parquet
from llm.curation.text import TextFiles
from llm.types import ConfigError
from tests.curation.reading import read, rows, told


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
        (b"\0\0", ("x.txt", "", False, "not_text")),
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


def test_a_binary_paragraph_costs_no_other(tmp_path: Path):
    (tmp_path / "x.txt").write_bytes(b"one\n\n" + b"\0" * 100 + b"bad\n\ntwo\nlines")
    found = read(TextFiles(str(tmp_path), per="paragraph"))
    assert found["reason"].to_list() == [None, "not_text", None]
    assert found["id"].to_list() == ["x.txt#0", "x.txt#1", "x.txt#2"]
    assert found["provenance"].to_list() == ["x.txt:1", "x.txt:3", "x.txt:5"]


# ----------------------------------------------------------------------------- all


def test_missing_file_empty_folder_and_pattern_without_match(tmp_path: Path):
    for path in (tmp_path / "no.txt", tmp_path, tmp_path / "*.txt"):
        for reader in (TextFiles, JsonLines, Parquet, CsvFiles):
            with pytest.raises(ConfigError) as caught:
                reader(str(path))
            assert caught.value.key == "path"


def test_small_files_share_a_part(tmp_path: Path, monkeypatch):
    for i in range(100):
        (tmp_path / f"{i:03}.txt").write_text("x" * 100)
    monkeypatch.setattr(files, "PART_BYTES", 1000)
    source = TextFiles(str(tmp_path))
    assert source.parts() == [f"{i:03}.txt+9" for i in range(0, 100, 10)]
    assert read(source)["id"].to_list() == [f"{i:03}.txt" for i in range(100)]


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


def test_odd_names_in_a_folder(tmp_path: Path):
    for name in (b"plain.jsonl", b"UPPER.JSONL", b"not_utf8_\xff.jsonl"):
        (tmp_path / os.fsdecode(name)).write_text('{"text": "a text"}\n')
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "nowhere")
    source = JsonLines(str(tmp_path))
    assert source.fingerprint() == JsonLines(str(tmp_path)).fingerprint()
    rows = pl.concat([frame for part in source.parts() for frame in source.read(part)])
    assert rows["keep"].sum() == 3
    assert rows.filter(~pl.col("keep"))["reason"].to_list() == ["unreadable"]


@pytest.mark.parametrize("reader", [TextFiles, JsonLines, CsvFiles, Parquet])
def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch, reader: type):
    (tmp_path / "closed").mkdir()
    content = "text\nx\n" if reader is CsvFiles else '{"text": "x"}'
    sound = tmp_path / f"a{reader.suffixes[0]}"
    sound.write_text(content)
    if reader is Parquet:
        pl.DataFrame({"text": ["x"]}).write_parquet(sound)
    opened = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = read(reader(str(tmp_path)))
    assert found.filter(pl.col("reason") == "unreadable")["id"].to_list() == ["closed#unreadable"]
    assert found.filter(~pl.col("id").str.starts_with("closed")).height == 1
    with pytest.raises(ConfigError, match="may not be read"):
        reader(str(tmp_path / "closed"))


def test_documents_without_text_fill_a_frame_too():
    made = (Document(f"x:{number}", "", "x", "text") for number in range(60_000))
    heights = [frame.height for frame in batched(made)]
    assert sum(heights) == 60_000
    assert len(heights) > 1


@pytest.mark.parametrize("reader", [TextFiles, JsonLines])
def test_a_large_file_that_may_not_be_read(tmp_path: Path, monkeypatch, reader: type):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n' * 9)
    (tmp_path / "b.jsonl").write_text('{"text": "x"}')
    monkeypatch.setattr(files, "PART_BYTES", 50)
    opened = Path.open

    def refuse(self, *args, **kwargs):
        if self.name == "a.jsonl":
            raise PermissionError
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    source = (
        JsonLines(str(tmp_path)) if reader is JsonLines else TextFiles(str(tmp_path / "*"), per="paragraph")
    )
    found = read(source)
    assert found["reason"].to_list() == ["unreadable", None]
    assert found["id"].to_list()[0] == "a.jsonl#unreadable"


def test_names_that_are_no_text_stay_apart(tmp_path: Path, monkeypatch):
    for name in ("三国", "西游"):
        (tmp_path / os.fsdecode(name.encode("gbk") + b".txt")).write_text(f"the text of {name}")
    for n_bytes in (1, 1 << 25):
        monkeypatch.setattr(files, "PART_BYTES", n_bytes)
        found = read(TextFiles(str(tmp_path)))
        assert sorted(found["text"]) == ["the text of 三国", "the text of 西游"]
        assert found["id"].is_unique().all()


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_no_folder(path: str):
    with pytest.raises(ConfigError, match="is empty: give a file"):
        TextFiles(path).parts()
