"""Labelled texts from every kind of file, and mistakes that name their place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from llm.classifiers.examples import LabelledRows, OneLabel
from llm.types import ConfigError

ROWS = [
    {"tweet": "one, two", "class": "0"},
    {"tweet": ' "three"\nfour ', "class": "2"},
    {"tweet": "", "class": "0"},
]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    frame = pl.DataFrame(ROWS)
    found = {kind: str(tmp_path / f"rows.{kind}") for kind in ("csv", "tsv", "jsonl", "parquet", "csv.gz")}
    frame.write_csv(found["csv"])
    frame.write_csv(found["tsv"], separator="\t")
    frame.write_parquet(found["parquet"])
    Path(found["jsonl"]).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path(found["csv.gz"]).write_bytes(gzip.compress(Path(found["csv"]).read_bytes()))
    return found


def test_every_kind_of_file_says_the_same(files: dict[str, str]):
    for path in files.values():
        rows = LabelledRows([path], text="tweet", label="class")
        assert list(rows.read()) == [("one, two", "0"), ('"three"\nfour', "2")], path
        assert [e.text for e in OneLabel([path], "x", text="tweet").read()] == ["one, two", '"three"\nfour']


def test_labels_are_renamed_and_others_left_out(files: dict[str, str]):
    rows = LabelledRows([files["jsonl"]], text="tweet", label="class", rename={0: "toxic"})
    assert list(rows.read()) == [("one, two", "toxic")]


def test_a_text_may_be_a_book_and_every_row_has_a_label(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text(f"text,label\n{'word ' * 40_000},high\nshort,low\nlacking\n")
    with pytest.raises(ConfigError, match=r"no label at .*rows\.csv:4") as caught:
        list(LabelledRows([str(path)]).read())
    assert caught.value.key == "label"
    renamed = list(LabelledRows([str(path)], rename={"high": "good", "low": "bad"}).read())
    assert [(len(text), label) for text, label in renamed] == [(199_999, "good"), (5, "bad")]


def test_paragraphs_of_plain_text(tmp_path: Path):
    path = tmp_path / "book.txt"
    path.write_text("TITLE\n\nThe first\nparagraph here.\n \nThe second paragraph here.\n")
    found = OneLabel([str(path)], "civil", min_words=3)
    assert [e.text for e in found.read()] == ["The first\nparagraph here.", "The second paragraph here.\n"]
    assert list(OneLabel([], "civil").read()) == []
    assert found.fingerprint() != OneLabel([], "civil").fingerprint()


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        ({"text": "body"}, "text", "rows.jsonl:1; it has tweet, class"),
        ({"label": "kind"}, "label", "no such column"),
        ({"text": "class"}, "text", "is not text"),
        ({"paths": []}, "paths", "at least one"),
        ({"paths": ["no.jsonl"]}, "paths", "no such file"),
        ({"paths": ["no.parquet"]}, "paths", "no such file"),
        ({"paths": ["book.txt"]}, "paths", "has no columns"),
    ],
)
def test_mistakes(tmp_path: Path, settings: dict, key: str, words: str):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"tweet": "a", "class": 3}\n')
    arguments = {"paths": [str(path)], "text": "tweet", "label": "class", **settings}
    with pytest.raises(ConfigError, match=words) as caught:
        list(LabelledRows(**arguments).read())
    assert caught.value.key == key
