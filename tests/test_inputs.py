"""Users' files: what is wrong is said with the byte or the line."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from llm.inputs import digest, read_jsonl, read_text
from llm.types import ConfigError


def test_no_file_has_no_rows() -> None:
    with pytest.raises(ConfigError, match="has no rows"):
        list(read_jsonl([], key="train"))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffa".encode())
    assert read_text(tmp_path / "a.txt", key="path") == "a"


def test_plain_and_gzipped_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("é\r\n".encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("é\r\n".encode()))
    assert read_text(tmp_path / "a.txt", key="path") == "é\r\n"
    assert read_text(str(tmp_path / "a.txt.gz"), key="path") == "é\r\n"


@pytest.mark.parametrize(
    ("name", "content", "mend"),
    [
        ("missing", None, "no such file"),
        (".", None, "this is a directory"),
        ("empty", b"", "the file is empty"),
        ("blank", b" \n\n", "the file is empty"),
        ("empty.gz", gzip.compress(b"", mtime=0), "the file is empty"),
        ("nul", b"text\0text", "byte 4 is NUL"),
        ("latin1", b"caf\xe9 au lait", r"byte 3 is 0xe9"),
        ("cut", "é".encode()[:1], "byte 0 is 0xc3"),
        ("plain.gz", b"not gzip", "not gzip as its name says"),
        ("cut.gz", gzip.compress(b"some text", mtime=0)[:-6], "damaged"),
        (
            "flipped.gz",
            gzip.compress(b"x" * 50, mtime=0)[:12] + b"\xff\xff" + gzip.compress(b"x" * 50)[14:],
            "damaged",
        ),
    ],
)
def test_what_is_not_text(tmp_path: Path, name: str, content: bytes | None, mend: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    path = str(tmp_path / name)
    with pytest.raises(ConfigError, match=mend) as caught:
        read_text(path, key="path")
    assert (caught.value.key, caught.value.value) == ("path", path)
    assert "\n" not in str(caught.value)


def test_rows_and_their_places(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": "x\u2028y"}\n\n  \n{"a": 2}', encoding="utf-8")
    rows = list(read_jsonl([str(file), str(file)], key="train"))
    assert [row["a"] for _, row in rows] == ["x\u2028y", 2] * 2
    assert [place.line for place, _ in rows] == [1, 4, 1, 4]


@pytest.mark.parametrize(
    ("content", "mend"),
    [
        ('{"a": 1}\n{"a": \n', "line 2: not valid JSON"),
        ("[1]\n", "line 1: a JSON object is needed, this is a list"),
        ("\n\n", "the file is empty"),
        ("[" * 100_000, "line 1: not valid JSON"),
    ],
)
def test_bad_rows(tmp_path: Path, content: str, mend: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(ConfigError, match=mend) as caught:
        list(read_jsonl([str(file)], key="train"))
    assert (caught.value.key, caught.value.value) == ("train", str(file))


def test_the_digest_is_of_the_bytes_in_order(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    assert digest([one], key="path") == hashlib.sha256(b"1").hexdigest()
    assert len({digest(paths, key="path") for paths in ([one], [one, two], [two, one])}) == 3
    with pytest.raises(ConfigError):
        digest([tmp_path / "missing"], key="path")
