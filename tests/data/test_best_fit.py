"""Best-fit-decreasing against the plain algorithm, and sequences in which every token is a target once."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm.data.best_fit import BestFitTokens, best_fit_decreasing, bounds_by_end, pieces
from llm.data.loader import Loader
from llm.data.mapped import ShardedTokens
from llm.data.packed import PackedData, PackedTokens
from llm.data.packing import pack
from llm.tokenizers import byte, character
from llm.types import IGNORE, ConfigError


def by_the_book(lengths: list[int], capacity: int) -> list[int]:
    """What is in each bin when every item, longest first, goes to the fullest bin that has room."""
    bins: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [number for number, used in enumerate(bins) if used + length <= capacity]
        if fitting:
            bins[max(fitting, key=lambda number: bins[number])] += length
        else:
            bins.append(length)
    return bins


@given(capacity=st.integers(1, 40), data=st.data())
def test_bins_are_filled_as_by_the_book(capacity: int, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=80))
    order, edges = best_fit_decreasing(np.array(lengths, dtype=np.int32), capacity)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    filled = [sum(lengths[i] for i in order[a:b]) for a, b in pairwise(edges)]
    assert Counter(filled) == Counter(by_the_book(lengths, capacity))
    assert edges[0] == 0
    assert edges[-1] == len(lengths)


def test_many_documents_fill_nearly_everything() -> None:
    lengths = np.minimum(np.random.default_rng(0).lognormal(5, 1.2, 50_000).astype(np.int32) + 1, 1024)
    order, edges = best_fit_decreasing(lengths, 1024)
    used = np.add.reduceat(lengths[order], edges[:-1])
    assert used.max() <= 1024
    assert used.sum() == lengths.sum()
    assert used.mean() > 0.9995 * 1024
    again, _ = best_fit_decreasing(lengths.copy(), 1024)
    assert np.array_equal(order, again)


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@given(lengths=SIZES, seq_len=st.integers(1, 12), data=st.data())
def test_pieces_cover_each_document(lengths: list[int], seq_len: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, seq_len - 1))
    bounds = np.cumsum([0, *lengths])
    starts, sizes, goes_on = pieces(bounds, seq_len, overlap)
    new = [
        place
        for start, size, more in zip(starts, sizes, goes_on, strict=True)
        for place in range(start + (overlap if more else 0), start + size)
    ]
    assert new == list(range(bounds[-1]))
    assert sizes.max() <= seq_len
    for start, size in zip(starts, sizes, strict=True):  # inside of one document
        number = np.searchsorted(bounds, start, side="right")
        assert start + size <= bounds[number]
    # Only documents that are too long are cut.
    assert len(starts) - goes_on.sum() == len(lengths)
    assert goes_on.sum() >= sum(length > seq_len for length in lengths)
    assert not goes_on.any() or max(lengths) > seq_len


END = 9


@st.composite
def corpora(draw: st.DrawFn) -> np.ndarray:
    documents = draw(st.lists(st.lists(st.integers(0, 8), max_size=20), min_size=1, max_size=12))
    return np.array([token for document in documents for token in [*document, END]], dtype=np.uint16)


@given(tokens=corpora(), seq_len=st.integers(1, 12), cut=st.integers(0, 30), data=st.data())
def test_every_token_is_a_target_once(
    tokens: np.ndarray, seq_len: int, cut: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, seq_len - 1))
    bounds = bounds_by_end(tokens, END)
    sharded = ShardedTokens([tokens[:cut], tokens[cut:]])
    dataset = BestFitTokens(sharded, bounds, seq_len, overlap=overlap, document_mask=True)
    batch = dataset.batch(range(len(dataset)))
    assert batch.targets is not None
    assert batch.documents is not None
    real = batch.targets != IGNORE
    assert Counter(batch.targets[real].tolist()) == Counter(tokens.tolist())
    assert int(real.sum()) == dataset.n_targets == len(tokens)
    filled = batch.documents != seq_len
    assert int((~filled).sum()) == dataset.n_padding
    assert not (real & ~filled).any()
    for row in range(len(dataset)):
        for number in range(int(batch.documents[row][filled[row]].max()) + 1):
            here = batch.documents[row] == number
            read, targets = batch.tokens[row][here].tolist(), batch.targets[row][here].tolist()
            # Inside of a piece, what is read next is what was the target before.
            assert all(t in (IGNORE, r) for t, r in zip(targets[:-1], read[1:], strict=True))
            assert END not in read[1:]
            lost = [t == IGNORE for t in targets]
            assert lost in ([False] * len(targets), [True] * overlap + [False] * (len(targets) - overlap))
            if len(read) < seq_len and not any(lost) and overlap:
                assert read[0] == END  # a whole document begins behind the end of one


def test_an_example_by_hand() -> None:
    tokens = np.array([1, 2, 3, END, 5, END], dtype=np.uint16)
    dataset = BestFitTokens(tokens, bounds_by_end(tokens, END), 7, document_mask=True)
    batch = dataset.batch([0])
    assert batch.tokens.tolist() == [[END, 1, 2, 3, END, 5, 0]]
    assert batch.targets is not None
    assert batch.targets.tolist() == [[1, 2, 3, END, 5, END, IGNORE]]
    assert batch.documents is not None
    assert batch.documents.tolist() == [[0, 0, 0, 0, 1, 1, 7]]
    assert (dataset.n_padding, dataset.n_targets, len(dataset)) == (1, 6, 1)
    overlapping = BestFitTokens(tokens, bounds_by_end(tokens, END), 3, overlap=1)
    targets = overlapping.batch(range(len(overlapping))).targets
    assert targets is not None
    assert targets.tolist() == [[1, 2, 3], [IGNORE, END, IGNORE], [5, END, IGNORE]]
    assert overlapping.batch([0]).documents is None


def test_a_text_that_ends_without_an_end() -> None:
    assert bounds_by_end(np.array([1, END, 2], dtype=np.uint16), END).tolist() == [0, 2, 3]


BYTES = byte.train([])
TEXTS = ["some words to learn from", "and others", "a", "and more of them " * 5]


def made(directory: Path) -> Path:
    BYTES.save(directory / "tokenizer")
    pack(directory / "train", TEXTS, BYTES)
    pack(directory / "validation", ["other words"], BYTES)
    return directory


def never(texts: object) -> byte.ByteTokenizer:
    raise AssertionError


def test_packed_data_packs_training_text_only(tmp_path: Path) -> None:
    data = PackedData(str(made(tmp_path)), 32, packing="best_fit", overlap=4, document_mask=True)
    train, validation, _ = data.load(never, tmp_path)
    assert isinstance(train, BestFitTokens)
    assert isinstance(validation, PackedTokens)
    concatenated = PackedData(str(tmp_path), 32).load(never, tmp_path)
    assert train.n_targets == len(concatenated.train.tokens)  # type: ignore[attr-defined]
    assert train.bytes_per_target == concatenated.train.bytes_per_target
    assert torch.equal(validation.batch([0]).tokens, concatenated.validation.batch([0]).tokens)
    loader = Loader(train, 2, seed=1)
    targets = [loader.batch(step).targets for step in range(len(train))]  # two epochs
    counts = Counter(t for one in targets if one is not None for t in one.flatten().tolist() if t != IGNORE)
    assert counts[256] == 2 * len(TEXTS)
    assert counts.total() == 2 * train.n_targets


def test_tokens_without_an_index_are_read_from_end_to_end(tmp_path: Path) -> None:
    data = PackedData(str(made(tmp_path)), 32, packing="best_fit")
    before = data.load(never, tmp_path).train
    (tmp_path / "train.idx").unlink()
    after = data.load(never, tmp_path).train
    assert torch.equal(before.batch(range(len(before))).tokens, after.batch(range(len(after))).tokens)


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    tokenizer = character.train(["abc \n"])
    tokenizer.save(tmp_path / "tokenizer")
    for split in ("train", "validation"):
        pack(tmp_path / split, ["abc", "a b c"], tokenizer)
    data = PackedData(str(tmp_path), seq_len=4, packing="best_fit")
    assert len(data.load(never, tmp_path).train)
    (tmp_path / "train.idx").write_bytes(b"\0" * 24)
    with pytest.raises(ConfigError, match="not the index of the tokens") as caught:
        data.load(never, tmp_path)
    assert caught.value.key == "path"
    (tmp_path / "train.idx").unlink()
    with pytest.raises(ConfigError, match="nothing says where documents end") as caught:
        data.load(never, tmp_path)
    assert caught.value.key == "packing"
    for mistake in ({"overlap": 2}, {"overlap": 4, "packing": "best_fit"}):
        with pytest.raises(ConfigError) as caught:
            PackedData(str(tmp_path), seq_len=4, **mistake)  # type: ignore[arg-type]
        assert caught.value.key == "overlap"
