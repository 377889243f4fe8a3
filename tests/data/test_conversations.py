"""Conversations: loss on the assistant alone, long ones counted, bad rows named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from llm.data.conversations import ConversationData, ConversationRows
from llm.tokenizers import byte, character
from llm.tokenizers.chat import ChatML
from llm.types import IGNORE, Batch, ConfigError, Message

BYTES = byte.train([])


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ROWS: list[dict[str, Any]] = [
    {"id": "a", "messages": [turn("user", "2+2?"), turn("assistant", "4"), turn("user", "ok")]},
    {
        "id": "b",
        "messages": [turn("system", "s"), turn("user", "hi"), turn("assistant", "hello <|im_end|> x")],
    },
]

SHORT = {"messages": [turn("user", ""), turn("assistant", "x")]}


def write(file: Path, rows: list[Any]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def load(
    tmp_path: Path, rows: list[Any], seq_len: int = 256, long: Literal["truncate", "drop"] = "truncate"
) -> ConversationRows:
    data = ConversationData(
        write(tmp_path / "train.jsonl", rows), write(tmp_path / "validation.jsonl", [SHORT]), seq_len, long
    )
    train = data.load(lambda _: BYTES, tmp_path).train
    assert isinstance(train, ConversationRows)
    return train


def learned(batch: Batch, row: int) -> str:
    assert batch.targets is not None
    return BYTES.decode([i for i in batch.targets[row].tolist() if i != IGNORE])


def test_only_the_assistant_is_learned(tmp_path: Path) -> None:
    dataset = load(tmp_path, ROWS)
    batch = dataset.batch([0, 1])
    assert len(dataset) == 2
    assert [learned(batch, row) for row in (0, 1)] == ["4<|im_end|>", "hello <|im_end|> x<|im_end|>"]
    ids, _ = ChatML(BYTES).render((Message("user", "2+2?"), Message("assistant", "4")))
    n = len(ids) - 2  # without the last target and the line's end
    assert batch.tokens[0, :n].tolist() == ids[:n]
    assert not batch.tokens[0, n:].any()


def test_a_batch_is_a_pure_function_of_its_indices(tmp_path: Path) -> None:
    dataset = load(tmp_path, ROWS * 3)
    assert dataset.batch([4, 1]).tokens.tolist() == dataset.batch([4, 1]).tokens.tolist()
    assert dataset.batch([0]).tokens.shape[1] < dataset.batch([1]).tokens.shape[1]
    assert dataset.batch([0]).tokens.shape[1] % 8 == 0


LONG = {"messages": [turn("user", "?"), turn("assistant", "a" * 500)]}
HOPELESS = {"messages": [turn("user", "?" * 500), turn("assistant", "a")]}


def test_long_conversations_are_cut_or_dropped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = load(tmp_path, [*ROWS, LONG, HOPELESS], seq_len=100)
    assert (len(cut), cut.n_truncated, cut.n_dropped) == (3, 1, 1)
    assert set(learned(cut.batch([2]), 0)) == {"a"}
    assert cut.batch([2]).tokens.shape == (1, 100)
    said = " ".join(capsys.readouterr().err.split())
    assert "train: 4 conversations, of them too long for seq_len=100: 1 cut, 1 dropped" in said
    dropped = load(tmp_path, [*ROWS, LONG, HOPELESS], seq_len=100, long="drop")
    assert (len(dropped), dropped.n_truncated, dropped.n_dropped) == (2, 0, 2)


def test_a_conversation_of_exactly_seq_len_is_whole(tmp_path: Path) -> None:
    row = {"messages": [turn("user", "?"), turn("assistant", "abc")]}
    ids, mask = ChatML(BYTES).render((Message("user", "?"), Message("assistant", "abc")))
    n_tokens = max(i for i, one in enumerate(mask) if one)  # the last id is only a target
    assert load(tmp_path, [row], seq_len=n_tokens).n_truncated == 0
    assert load(tmp_path, [row], seq_len=n_tokens - 1).n_truncated == 1
    assert len(ids) == n_tokens + 2


def test_nothing_fits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of the 1 conversations for train fits") as caught:
        load(tmp_path, [HOPELESS], seq_len=100)
    assert caught.value.key == "seq_len"


@pytest.mark.parametrize(
    ("row", "mend"),
    [
        ({}, r"line 3: `messages` is missing"),
        ({"messages": []}, "`messages` is not a list of turns"),
        ({"messages": "hi"}, "`messages` is not a list of turns"),
        ({"messages": [turn("user", "a"), {"content": "x"}]}, r"`messages\[1\].role` is None; one of system"),
        ({"messages": [turn("human", "a")]}, r"`messages\[0\].role` is 'human'"),
        ({"messages": ["hi"]}, r"`messages\[0\].role` is 'hi'"),
        ({"messages": [{"role": "user"}]}, r"`messages\[0\].content` is missing"),
        ({"messages": [{"role": "user", "content": 3}]}, r"`messages\[0\].content` is missing, or not text"),
        ({"messages": [turn("user", "a")]}, "no turn of the assistant"),
        ({"messages": [turn("user", "a"), turn("assistant", " ")]}, r"`messages\[1\].content` is empty"),
        (
            {"messages": [turn("user", "a"), turn("user", "b"), turn("assistant", "c")]},
            r"`messages\[1\].role` is user again; turns must alternate",
        ),
        ([], "line 3: a JSON object is needed"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: Any, mend: str) -> None:
    with pytest.raises(ConfigError, match=mend) as caught:
        load(tmp_path, [*ROWS, row])
    assert (caught.value.key, caught.value.value) == ("train", str(tmp_path / "train.jsonl"))


def test_several_files(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.jsonl", ROWS[:1]), write(tmp_path / "two.jsonl", ROWS)
    data = ConversationData([one, two], one, 256)
    train, validation, _ = data.load(lambda _: BYTES, tmp_path)
    assert (len(train), len(validation)) == (3, 1)
    assert data.fingerprint() != ConversationData(one, one, 256).fingerprint()


def test_a_tokenizer_that_cannot_chat(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(ConfigError) as caught:
        ConversationData(path, path, 256).load(character.train, tmp_path)
    assert caught.value.key == "tokenizer"


def test_the_tokenizer_may_learn_from_the_training_turns(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", ROWS)
    seen: list[str] = []
    ConversationData(path, path, 256).load(lambda texts: seen.extend(texts) or BYTES, tmp_path)
    assert seen == [message["content"] for row in ROWS for message in row["messages"]]
