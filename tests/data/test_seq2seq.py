"""Pairs: what is read and what is written, long ones counted, bad rows named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llm.data.seq2seq import PairData, PairRows
from llm.tokenizers import byte, character
from llm.types import IGNORE, ConfigError, Splits

BYTES = byte.train([])
END = BYTES.eos_id
ROWS = [{"source": "abc", "target": "xyz", "id": 1}, {"source": "", "target": "w"}]


def write(file: Path, rows: list[Any]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def load(tmp_path: Path, rows: list[Any], tokenizer: Any = BYTES, seq_len: int = 16, **more: Any) -> Splits:
    train = write(tmp_path / "train.jsonl", rows)
    validation = write(tmp_path / "validation.jsonl", ROWS[:1])
    if "source_field" in more:
        validation = train
    return PairData(train, validation, seq_len, **more).load(lambda texts: tokenizer, tmp_path)


def test_a_batch_is_as_drawn(tmp_path: Path) -> None:
    train = load(tmp_path, ROWS, start_id=7).train
    batch = train.batch([0, 1])
    a, b, c, x, y, z, w = (ord(letter) for letter in "abcxyzw")
    assert batch.source is not None
    assert batch.source_padding is not None
    assert batch.targets is not None
    assert batch.source[:, :4].tolist() == [[a, b, c, END], [END, 0, 0, 0]]
    assert batch.source_padding.sum(1).tolist() == [4, 1]
    assert batch.tokens[:, :4].tolist() == [[7, x, y, z], [7, w, END, 0]]
    assert batch.targets[:, :4].tolist() == [[x, y, z, END], [w, END, IGNORE, IGNORE]]
    assert batch.tokens.shape == batch.targets.shape == (2, 8)  # a whole multiple
    assert train.bytes_per_target is None
    assert torch.equal(train.batch([1]).tokens, batch.tokens[1:])


def test_sides_may_have_other_names(tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": "b"}]
    splits = load(tmp_path, rows, source_field="question", target_field="answer")
    assert splits.train.batch([0]).source[0, 0] == ord("a")  # type: ignore[index]


def test_long_pairs_are_cut_or_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"source": "a" * 20, "target": "b"}, {"source": "a", "target": "b" * 20}, ROWS[0]]
    train = load(tmp_path, rows, seq_len=6).train
    batch = train.batch([0, 1])
    assert len(train) == 3
    assert batch.source is not None
    assert batch.targets is not None
    assert batch.source[0].tolist() == [ord("a")] * 5 + [END]  # it still ends
    assert batch.targets[1].tolist() == [ord("b")] * 6  # and this does not
    assert "2 cut, 0 dropped" in capsys.readouterr().err
    assert len(load(tmp_path, rows, seq_len=6, long="drop").train) == 1


def test_the_tokenizer_learns_from_both_sides_of_training(tmp_path: Path) -> None:
    seen: list[str] = []
    train = write(tmp_path / "train.jsonl", ROWS)
    PairData(train, train, 16).load(lambda texts: (seen.extend(texts), BYTES)[1], tmp_path)
    assert seen == ["abc", "xyz", "", "w"]


def test_many_rows_cost_little(tmp_path: Path) -> None:
    rows = PairRows([[1, 2]] * 1000, [[3]] * 1000, vocab_size=9, start_id=0, seq_len=4)
    assert rows._sources.ids.nbytes == 4000
    assert len(rows) == 1000


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"input": "a", "target": "b"}, "`source` is missing, the row has input, target; name the field"),
        ({"source": "a"}, "`target` is missing"),
        ({"source": ["a"], "target": "b"}, "`source` is a list; text is needed"),
        ({"source": "a", "target": None}, "`target` is a NoneType"),
        ({"source": "a", "target": " "}, "`target` is empty; there is nothing to learn"),
        (["a", "b"], "a JSON object is needed"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named(tmp_path: Path, row: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, [ROWS[0], row])
    assert (caught.value.key, caught.value.value) == ("train", str(tmp_path / "train.jsonl"))
    assert caught.value.mend.startswith(f"line 2: {says}")


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would never end") as caught:
        load(tmp_path, ROWS, tokenizer=character.train(["abcxyzw"]))
    assert caught.value.key == "tokenizer"
    with pytest.raises(ConfigError, match="none of the 2 pairs") as caught:
        load(tmp_path, [{"source": "a" * 20, "target": "b"}] * 2, seq_len=6, long="drop")
    assert caught.value.key == "seq_len"
    with pytest.raises(ConfigError, match="no such file"):
        PairData(str(tmp_path / "no.jsonl"), str(tmp_path / "no.jsonl"), 16).fingerprint()
