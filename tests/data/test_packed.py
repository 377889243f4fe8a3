"""Windows over packed tokens: every target once, and damage that is noticed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm.data.boundaries import AfterId
from llm.data.mapped import open_packed
from llm.data.packed import PackedData, PackedTokens
from llm.data.packing import pack
from llm.tokenizers import byte, character
from llm.types import IGNORE, ConfigError

BYTES = byte.train([])


def ids(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.uint16)


def test_targets_are_the_next_tokens_and_the_last_window_is_padded() -> None:
    batch = PackedTokens(ids(8), 3).batch([0, 2])
    assert batch.tokens.tolist() == [[0, 1, 2], [6, 0, 0]]
    assert batch.targets is not None
    assert batch.targets.tolist() == [[1, 2, 3], [7, IGNORE, IGNORE]]
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64


@given(n=st.integers(2, 60), seq_len=st.integers(1, 20), offset=st.integers(0, 1000))
def test_every_target_is_in_one_window(n: int, seq_len: int, offset: int) -> None:
    plain = PackedTokens(ids(n), seq_len)
    for dataset in (plain, plain.shifted(offset)):
        batch = dataset.batch(range(len(dataset)))
        assert batch.targets is not None
        real = batch.targets != IGNORE
        assert torch.equal(batch.targets[real], (batch.tokens[real] + 1) % n)
        assert real.sum() == n - 1
        targets = batch.targets[real].tolist()
        assert len(set(targets)) == n - 1
        if dataset is plain:
            assert targets == list(range(1, n))
        assert len(dataset) == len(plain)


def test_shifting_moves_the_boundaries() -> None:
    dataset = PackedTokens(ids(9), 4)
    assert dataset.shifted(1).batch([0, 1]).tokens.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert dataset.shifted(5).batch([0]).tokens.tolist() == dataset.shifted(1).batch([0]).tokens.tolist()
    assert dataset.shifted(4).batch([0, 1]).tokens.tolist() == dataset.batch([0, 1]).tokens.tolist()


def test_bytes_per_target() -> None:
    assert PackedTokens(ids(8), 3, n_bytes=20).bytes_per_target == 2.5
    assert PackedTokens(ids(8), 3).bytes_per_target is None


def make(directory: Path) -> PackedData:
    BYTES.save(directory / "tokenizer")
    pack(directory / "train", ["some words to learn from", "and others"], BYTES)
    pack(directory / "validation", ["other words"], BYTES)
    return PackedData(str(directory), seq_len=8)


def never(texts: object) -> byte.ByteTokenizer:
    raise AssertionError("packed data has its tokenizer")


def test_what_was_packed_is_loaded(tmp_path: Path) -> None:
    train, validation, tokenizer = make(tmp_path).load(never, tmp_path)
    assert isinstance(train, PackedTokens)
    assert (
        tokenizer.decode(train.tokens.tolist())
        == "some words to learn from<|endoftext|>and others<|endoftext|>"
    )
    assert (len(train), len(validation)) == (5, 2)
    assert validation.bytes_per_target == 11 / 12
    assert isinstance(train.tokens, np.memmap)
    assert train.batch([0]).tokens.tolist() == [list(b"some wor")]


def test_the_fingerprint_follows_the_tokens(tmp_path: Path) -> None:
    data = make(tmp_path)
    before = data.fingerprint()
    assert before == data.fingerprint()
    pack(tmp_path / "validation", ["changed"], BYTES)
    assert data.fingerprint() != before


def cut(directory: Path) -> None:
    file = directory / "train.bin"
    file.write_bytes(file.read_bytes()[:-2])


def flip(directory: Path) -> None:
    file = directory / "validation.bin"
    raw = bytearray(file.read_bytes())
    raw[3] ^= 1
    file.write_bytes(raw)


def sidecar(**changes: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        file = directory / "train.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


DAMAGE = {
    "cut": (cut, r"train\.bin: 70 bytes, but its \.json says 72"),
    "flipped": (flip, r"validation\.bin: damaged: its sha256"),
    "no file": (lambda d: (d / "train.bin").unlink(), r"train\.bin: cannot be read"),
    "no sidecar": (lambda d: (d / "train.json").unlink(), r"train\.json: cannot be read"),
    "not json": (lambda d: (d / "train.json").write_text("{"), r"train\.json: damaged"),
    "a key too many": (sidecar(extra=1), r"train\.json: damaged"),
    "another type": (sidecar(dtype="float64"), "ids of type 'float64'"),
    "another vocabulary": (sidecar(vocab_size=300), "vocabulary of 300, the tokenizer beside it has 259"),
    "no tokenizer": (lambda d: (d / "tokenizer/kind.json").unlink(), "not a tokenizer's directory"),
    "too short": (lambda d: pack(d / "train", [], BYTES), "0 tokens; at least 2"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_a_config_error(tmp_path: Path, name: str) -> None:
    damage, mend = DAMAGE[name]
    data = make(tmp_path)
    damage(tmp_path)
    with pytest.raises(ConfigError, match=mend) as caught:
        data.load(never, tmp_path)
    assert (caught.value.key, caught.value.value) == ("path", str(tmp_path))


def test_verification_can_be_left_out(tmp_path: Path) -> None:
    make(tmp_path)
    flip(tmp_path)
    PackedData(str(tmp_path), seq_len=8, verify=False).load(never, tmp_path)
    with pytest.raises(ConfigError):
        open_packed(tmp_path / "validation")


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    data = PackedData(str(tmp_path / "nowhere"), seq_len=8)
    for ask in (lambda: data.load(never, tmp_path), data.fingerprint):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert caught.value.key == "path"


def with_documents(tokens: list[int], seq_len: int) -> PackedTokens:
    return PackedTokens(np.array(tokens, dtype=np.uint16), seq_len, ends=AfterId(9))


def test_documents_are_numbered_in_each_row_and_the_filling_is_none_of_them() -> None:
    batch = with_documents([1, 9, 2, 3, 9, 9, 4, 5], 5).batch([0, 1])
    assert batch.documents is not None
    assert batch.documents.tolist() == [[0, 0, 1, 1, 1], [0, 1, 5, 5, 5]]
    assert batch.tokens.tolist() == [[1, 9, 2, 3, 9], [9, 4, 0, 0, 0]]
    assert batch.to("cpu").documents is not None


@given(seq_len=st.integers(1, 12), offset=st.integers(0, 40), data=st.data())
def test_two_tokens_share_a_document_when_no_end_stands_between(
    seq_len: int, offset: int, data: st.DataObject
) -> None:
    tokens = data.draw(st.lists(st.sampled_from([1, 2, 9]), min_size=2, max_size=30))
    dataset = with_documents(tokens, seq_len).shifted(offset)
    plain = PackedTokens(np.array(tokens, dtype=np.uint16), seq_len).shifted(offset)
    batch, without = (d.batch(range(len(plain))) for d in (dataset, plain))
    assert without.documents is None
    assert torch.equal(batch.tokens, without.tokens)
    assert batch.targets is not None
    assert without.targets is not None
    assert torch.equal(batch.targets, without.targets)
    assert batch.documents is not None
    for row, ids, targets in zip(batch.documents, batch.tokens, batch.targets, strict=True):
        n = int((targets != IGNORE).sum())
        for place in range(1, n):
            assert (row[place] == row[place - 1]) == (ids[place - 1] != 9)
        assert not set(row[:n].tolist()) & set(row[n:].tolist())


def test_documents_of_packed_data(tmp_path: Path) -> None:
    plain = make(tmp_path)
    masked = PackedData(str(tmp_path), seq_len=32, document_mask=True)
    batch = masked.load(never, tmp_path).train.batch([0])
    assert batch.documents is not None
    first = len("some words to learn from") + 1  # the separator ends it
    assert batch.documents[0].tolist() == [0] * first + [1] * (32 - first)
    assert plain.load(never, tmp_path).train.batch([0]).documents is None
    assert masked.fingerprint() == plain.fingerprint()


def test_documents_need_an_end(tmp_path: Path) -> None:
    tokenizer = character.train(["abc \n"])
    tokenizer.save(tmp_path / "tokenizer")
    for split in ("train", "validation"):
        pack(tmp_path / split, ["abc", "a b c"], tokenizer)
    PackedData(str(tmp_path), seq_len=4).load(never, tmp_path)
    with pytest.raises(ConfigError, match="no end-of-text id") as caught:
        PackedData(str(tmp_path), seq_len=4, document_mask=True).load(never, tmp_path)
    assert caught.value.key == "document_mask"
