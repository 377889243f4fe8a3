"""Packed files: what is written, and that a failure leaves nothing or the old files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.data import packing
from llm.data.packing import PackedWriter, id_dtype, pack, tokens_of
from llm.tokenizers import byte, character

BYTES = byte.train([])


def test_the_sidecar_says_what_is_in_the_file(tmp_path: Path) -> None:
    info = pack(tmp_path / "train", ["ab", "é"], BYTES)
    raw = (tmp_path / "train.bin").read_bytes()
    assert np.frombuffer(raw, "<u2").tolist() == [97, 98, 256, 0xC3, 0xA9, 256]
    assert json.loads((tmp_path / "train.json").read_text()) == {
        "dtype": "uint16",
        "n_tokens": 6,
        "n_bytes": 4,
        "n_documents": 2,
        "vocab_size": 259,
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    assert info.n_tokens == 6
    assert np.fromfile(tmp_path / "train.idx", "<u8").tolist() == [0, 3, 6]
    assert {file.name for file in tmp_path.iterdir()} == {"train.bin", "train.idx", "train.json"}


def test_documents_are_set_apart_by_a_blank_line_without_an_end_of_text(tmp_path: Path) -> None:
    tokenizer = character.train(["ab\n"])
    pack(tmp_path / "train", ["a", "b"], tokenizer)
    ids = np.fromfile(tmp_path / "train.bin", "<u2").tolist()
    assert tokenizer.decode(ids) == "a\n\nb\n\n"


@given(texts=st.lists(st.text(max_size=30), max_size=12), group=st.integers(1, 40))
@settings(max_examples=50)
def test_grouping_and_cutting_into_pieces_changes_nothing(tmp_path_factory, texts, group) -> None:  # type: ignore[no-untyped-def]
    directory = tmp_path_factory.mktemp("packed")
    done: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "GROUP_CHARACTERS", group)
        info = pack(directory / "train", texts, BYTES, done.append)
        in_memory = tokens_of("".join(texts), BYTES)
    want = [i for text in texts if text for i in [*text.encode(), 256]]
    assert np.fromfile(directory / "train.bin", "<u2").tolist() == want
    assert info.n_bytes == sum(done) == len("".join(texts).encode())
    assert info.n_documents == sum(bool(text) for text in texts)
    bounds = np.fromfile(directory / "train.idx", "<u8").tolist()
    assert bounds == [0, *(place + 1 for place, one in enumerate(want) if one == 256)]
    assert in_memory.tolist() == list("".join(texts).encode())


def test_wide_vocabularies_get_wide_ids(tmp_path: Path) -> None:
    assert id_dtype(65_536) == np.dtype("<u2")
    assert id_dtype(65_537) == np.dtype("<u4")
    with PackedWriter(tmp_path / "train", 70_000) as writer:
        writer.write([0, 69_999], n_bytes=2, n_documents=1)
    assert np.fromfile(tmp_path / "train.bin", "<u4").tolist() == [0, 69_999]
    assert writer.info.dtype == "uint32"


def test_an_id_beyond_the_vocabulary_is_not_cut_in_silence(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="vocabulary"), PackedWriter(tmp_path / "train", 100) as writer:
        writer.write([100], n_bytes=1, n_documents=1)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_files(tmp_path: Path) -> None:
    pack(tmp_path / "train", ["old"], BYTES)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def failing():  # type: ignore[no-untyped-def]
        yield "new"
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError):
        pack(tmp_path / "train", failing(), BYTES)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
