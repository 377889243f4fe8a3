"""JSON lines become documents, and all that is none is told of."""

from __future__ import annotations

import codecs
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm.curation import files
from llm.curation.jsonl import JsonLines, Parser
from llm.types import ConfigError
from tests.curation.reading import read, rows, told


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
        (codecs.BOM_UTF8 + b'{"text": "a"}', "a", None),
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


def test_a_column_that_stands_further_on(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    lines = [json.dumps({"text": "x" * 1000})] * 2500 + [json.dumps({"text": "y", "terms": "MIT"})]
    path.write_text("\n".join(lines))
    assert read(JsonLines(str(path), licence_column="terms"))["licence"].to_list()[-1] == "MIT"
    path.write_text("\n".join(lines[-2:]))
    assert read(JsonLines(str(path), licence_column="terms"))["licence"].to_list()[-1] == "MIT"
    with pytest.raises(ConfigError):
        JsonLines(str(path), text="body").parts()


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


def test_real_jsonl(shared_dir: Path):
    found = rows(JsonLines(str(shared_dir / "data" / "c4-demo")))
    assert len(found) == 300
    assert all(row[1] for row in found)
