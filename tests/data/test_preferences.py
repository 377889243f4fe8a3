"""Preference pairs: stacked as `Batch` says, loss on the answers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.data.preferences import PreferenceData, PreferencePairs
from llm.tokenizers import byte
from llm.types import IGNORE, Batch, ConfigError

BYTES = byte.train([])


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": prompt}], "chosen": chosen, "rejected": rejected}


MANY_TURNS = {
    "id": "m",
    "prompt": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "earlier answer"},
        {"role": "user", "content": "again"},
    ],
    "chosen": "good",
    "rejected": "bad",
}
ROWS = [pair("one?", "yes", "no way"), pair("two?", "a much longer answer", "b"), MANY_TURNS]


def load(tmp_path: Path, rows: list[Any], seq_len: int = 256) -> PreferencePairs:
    for name, content in (("train", rows), ("validation", ROWS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    data = PreferenceData(str(tmp_path / "train.jsonl"), str(tmp_path / "validation.jsonl"), seq_len)
    train = data.load(lambda _: BYTES, tmp_path).train
    assert isinstance(train, PreferencePairs)
    return train


def learned(batch: Batch) -> list[str]:
    assert batch.targets is not None
    return [BYTES.decode([i for i in row if i != IGNORE]) for row in batch.targets.tolist()]


def test_first_the_chosen_then_the_rejected_in_the_same_order(tmp_path: Path) -> None:
    dataset = load(tmp_path, ROWS)
    assert len(dataset) == 3
    batch = dataset.batch([2, 0])
    answers = ["good", "yes", "bad", "no way"]
    assert learned(batch) == [answer + "<|im_end|>" for answer in answers]
    prompts = [BYTES.decode(row[: row.index(10) + 1]) for row in batch.tokens.tolist()]
    assert prompts[0] == prompts[2] == "<|im_start|>system\n"
    assert prompts[1] == prompts[3] == "<|im_start|>user\n"


def test_both_rows_of_a_pair_share_their_prompt(tmp_path: Path) -> None:
    batch = load(tmp_path, ROWS).batch([2])
    assert batch.targets is not None
    n_prompt = int((batch.targets[0] != IGNORE).nonzero()[0]) + 1
    assert batch.tokens[0, :n_prompt].tolist() == batch.tokens[1, :n_prompt].tolist()
    assert BYTES.decode(batch.tokens[0, :n_prompt].tolist()).endswith(
        "again<|im_end|>\n<|im_start|>assistant\n"
    )


def test_long_pairs_are_cut_or_dropped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [ROWS[0], pair("x", "y" * 300, "short"), pair("x" * 300, "y", "z")]
    dataset = load(tmp_path, rows, seq_len=60)
    assert (len(dataset), dataset.n_truncated, dataset.n_dropped) == (2, 1, 1)
    chosen, rejected = learned(dataset.batch([1]))
    assert set(chosen) == {"y"}
    assert rejected == "short<|im_end|>"
    assert "3 pairs, of them too long for seq_len=60: 1 cut, 1 dropped" in " ".join(
        capsys.readouterr().err.split()
    )


@given(n_prompt=st.integers(0, 40), n_answer=st.integers(1, 40))
@settings(max_examples=60)
def test_an_answer_is_never_cut_to_nothing(tmp_path_factory, n_prompt: int, n_answer: int) -> None:  # type: ignore[no-untyped-def]
    directory = tmp_path_factory.mktemp("pairs")
    overhead = len("user\n") + 1 + 1 + 1 + 1 + len("assistant\n")  # markers are one id each
    seq_len = 36
    rows = [pair("p" * n_prompt, "c" * n_answer, "r"), ROWS[0]]
    dataset = load(directory, rows, seq_len=seq_len)
    fits = n_prompt + overhead <= seq_len
    assert dataset.n_dropped == (not fits)
    for answer in learned(dataset.batch(range(len(dataset)))):
        assert answer
    if fits:
        room = seq_len + 1 - n_prompt - overhead
        whole = "c" * n_answer + "\0"  # \0 stands for the end marker, one id
        assert learned(dataset.batch([0]))[0].replace("<|im_end|>", "\0") == whole[:room]


def test_nothing_fits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of the 1 pairs") as caught:
        load(tmp_path, [pair("x" * 300, "y", "z")], seq_len=60)
    assert caught.value.key == "seq_len"


@pytest.mark.parametrize(
    ("row", "mend"),
    [
        ({**ROWS[0], "prompt": "text"}, "line 2: `prompt` is not a list of turns"),
        ({"chosen": "a", "rejected": "b"}, "`prompt` is missing"),
        ({**ROWS[0], "prompt": [{"role": "assistant", "content": "x"}]}, "must end with the user's turn"),
        ({"prompt": ROWS[0]["prompt"], "rejected": "b"}, "`chosen` is missing"),
        ({**ROWS[0], "rejected": None}, "`rejected` is missing, or not text"),
        ({**ROWS[0], "chosen": " \n"}, "`chosen` is empty"),
        ({**ROWS[0], "rejected": ROWS[0]["chosen"]}, "`chosen` and `rejected` are the same"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, Any], mend: str) -> None:
    with pytest.raises(ConfigError, match=mend) as caught:
        load(tmp_path, [ROWS[0], row])
    assert (caught.value.key, caught.value.value) == ("train", str(tmp_path / "train.jsonl"))
