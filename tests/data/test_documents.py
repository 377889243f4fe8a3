"""Documents on disk: in order, sampled always alike, and damage named."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from llm.data import documents
from llm.data.documents import Documents
from llm.types import ConfigError


def test_parquet_and_text_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "ROWS_AT_ONCE", 3)
    texts = [f"document {i} é" for i in range(10)]
    pl.DataFrame({"id": list(range(12)), "text": [*texts, "", None]}).write_parquet(tmp_path / "a.parquet")
    found = Documents(str(tmp_path / "a.parquet"), key="train")
    assert list(found) == list(found) == texts
    assert found.n_bytes == sum(len(text.encode()) for text in texts)
    assert list(found.rows(4, 7)) == texts[4:]
    assert list(found.rows(2, 4)) == texts[2:6]
    assert found.row_bytes().tolist() == [*(len(text.encode()) for text in texts), 0, 0]
    (tmp_path / "a.txt").write_text("one text\n")
    one = Documents(str(tmp_path / "a.txt"), key="train")
    assert list(one) == list(one.rows(0, 1)) == ["one text\n"]
    assert one.row_bytes().tolist() == [9]


def test_a_sample_is_of_about_its_size_and_always_the_same(tmp_path: Path) -> None:
    pl.DataFrame({"text": [f"{i:010}" for i in range(5000)]}).write_parquet(tmp_path / "a.parquet")
    found = Documents(str(tmp_path / "a.parquet"), key="train")
    sample = list(found.sample(10_000))
    assert 800 < len(sample) < 1200
    assert sample == list(found.sample(10_000)) == sorted(sample)
    assert list(found.sample(50_000)) == list(found)
    assert len(list(found.sample(1))) == 1


def test_a_text_is_sampled_in_parts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789\n" * 100_000)
    sample = list(Documents(str(tmp_path / "a.txt"), key="train").sample(300_000))
    assert 0 < sum(map(len, sample)) < 900_000
    whole = Documents(str(tmp_path / "a.txt"), key="train").sample(10**9)
    assert "".join(whole) == "0123456789\n" * 100_000


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("missing.parquet", "no such file"),
        ("corrupt.parquet", "damaged, or not a parquet file"),
        ("cut.parquet", "damaged, or not a parquet file"),
        ("other.parquet", "needs a column `text` of strings; it has id, body"),
        ("numbers.parquet", "needs a column `text`"),
        ("none.parquet", "has no text"),
        ("empty.txt", "the file is empty"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, mend: str) -> None:
    (tmp_path / "corrupt.parquet").write_bytes(b"PAR1 not really" * 9)
    (tmp_path / "empty.txt").write_bytes(b"")
    pl.DataFrame({"id": [1], "body": ["x"]}).write_parquet(tmp_path / "other.parquet")
    pl.DataFrame({"text": [1]}).write_parquet(tmp_path / "numbers.parquet")
    pl.DataFrame({"text": []}, schema={"text": pl.String}).write_parquet(tmp_path / "none.parquet")
    raw = (tmp_path / "other.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(raw[: len(raw) // 2])
    path = str(tmp_path / name)
    with pytest.raises(ConfigError, match=mend) as caught:
        Documents(path, key="validation")
    assert (caught.value.key, caught.value.value) == ("validation", path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.csv"])
def test_rows_of_other_formats_are_no_text(tmp_path, name: str) -> None:
    (tmp_path / name).write_text('{"text": "a"}')
    with pytest.raises(ConfigError, match="task=curate makes a parquet file") as caught:
        Documents(str(tmp_path / name), key="train")
    assert caught.value.key == "train"
