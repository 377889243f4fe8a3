"""Datasets of the Hugging Face library, from local files."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from llm.curation.huggingface import HuggingFaceDataset
from llm.types import ConfigError
from tests.curation.reading import read, told


def test_local_files_in_shards(tmp_path: Path):
    for name in ("a", "b"):
        rows = [{"text": f"{name}{n}", "url": f"http://{name}.org/{n}", "n": n} for n in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = HuggingFaceDataset(
        "json", data_files=str(tmp_path / "*.jsonl"), provenance_column="url", licence="MIT"
    )
    assert source.parts() == ["train-00000", "train-00001"]
    found = read(source)
    assert found["text"].to_list() == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert found["provenance"].to_list()[3] == "http://b.org/0"
    assert found["id"].to_list()[4] == "json/train-00001:1"
    assert found["id"].is_unique().all()
    first = source.fingerprint()
    (tmp_path / "a.jsonl").write_text('{"text": "changed", "url": "u", "n": 1}')
    assert source.fingerprint() != first


def test_bad_rows_and_files(tmp_path: Path):
    pl.DataFrame({"text": ["a", None, "c\0", "d" * 300]}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"no such format")
    source = HuggingFaceDataset("parquet", data_files=str(tmp_path / "*.parquet"), max_document_bytes=200)
    assert [(row[1][:9], *row[2:]) for row in told(source)][:4] == [
        ("a", True, None),
        ('{"text":n', False, "no_text"),
        ("c", True, "nul_bytes"),
        ("ddddddddd", False, "too_large"),
    ]
    assert told(source)[4][0] == "parquet/train-00001#corrupt"


def test_a_broken_file_before_others(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"\n{"text": "b"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "c"}\n' * 2)
    found = read(HuggingFaceDataset("json", data_files=str(tmp_path / "*.jsonl")))
    assert found["reason"].to_list() == ["corrupt", None, None]


def test_wrong_configs(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        HuggingFaceDataset("org/name")
    assert caught.value.key == "revision"
    with pytest.raises(ConfigError) as caught:
        HuggingFaceDataset("org/name", data_files="data/*.parquet")
    assert caught.value.key == "revision"
    pinned = HuggingFaceDataset("org/name", revision="abc", data_files="data/*.parquet").fingerprint()
    assert pinned != HuggingFaceDataset("org/name", revision="def", data_files="data/*.parquet").fingerprint()
    with pytest.raises(ConfigError) as caught:
        HuggingFaceDataset("json", data_files=str(tmp_path / "no.jsonl")).fingerprint()
    assert caught.value.key == "data_files"
    (tmp_path / "a.jsonl").write_text('{"body": "x"}')
    with pytest.raises(ConfigError, match="body") as caught:
        HuggingFaceDataset("json", data_files=str(tmp_path / "a.jsonl")).parts()
    assert (caught.value.key, caught.value.value) == ("text", "text")
    with pytest.raises(ConfigError) as caught:
        HuggingFaceDataset("json", data_files=str(tmp_path / "a.jsonl"), split="nowhere").parts()
    assert caught.value.key == "dataset"
