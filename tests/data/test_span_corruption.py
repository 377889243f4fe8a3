"""Texts with gaps: T5's lengths, nothing lost, the same gaps again, mistakes told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm.data.loader import Loader
from llm.data.span_corruption import Lengths, SpanCorruption, SpanCorruptionData, gaps, lengths_of
from llm.data.text import TextData
from llm.tokenizers import byte, character
from llm.tokenizers.sentinels import SentinelTokenizer, sentinels_of
from llm.types import Batch, ConfigError, Splits

TEXT = "To be, or not to be, that is the question.\n" * 40


def test_lengths_are_the_released_codes() -> None:
    """``random_spans_helper`` makes 568 tokens into sources of 512 and targets of 114."""
    assert lengths_of(512, 0.15, 3.0) == Lengths(text=568, noise=85, gaps=28, source=512, target=114)
    assert lengths_of(1024, 0.15, 3.0)[-2:] == (1024, 229)


@given(
    seq_len=st.integers(4, 300),
    noise_density=st.floats(0.01, 0.99),
    mean=st.floats(1, 20),
    ends=st.booleans(),
    seed=st.integers(0, 2**40),
)
def test_what_was_taken_out_is_in_the_target(
    seq_len: int, noise_density: float, mean: float, ends: bool, seed: int
) -> None:
    """Putting each part of the target at its sentinel gives the text back."""
    try:
        lengths = lengths_of(seq_len, noise_density, mean, ends_source=ends)
    except ConfigError as mistake:
        assert mistake.key == "noise_density"
        return
    text, end_id = np.arange(3 * lengths.text, dtype=np.uint16) % 97, 98 if ends else None
    sentinels = range(100, 101 + lengths.gaps)
    data = SpanCorruption(text, lengths, sentinels=sentinels, end_id=end_id, start_id=99, seed=seed)
    for dataset, offset in ((data, 0), (data.shifted(7), 7)):
        batch = dataset.batch(range(len(dataset)))
        assert batch.source is not None
        assert batch.targets is not None
        assert batch.source.shape == (3, lengths.source)
        assert batch.targets.shape == (3, lengths.target)
        assert lengths.source <= seq_len
        assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
        assert (batch.tokens[:, 0] == 99).all()
        for row in range(3):
            filled = fill(batch.source[row].tolist(), batch.targets[row].tolist(), end_id)
            places = np.arange(lengths.text) + row * lengths.text + offset % lengths.text
            assert filled == text[places % len(text)].tolist()


def fill(source: list[int], target: list[int], end_id: int | None) -> list[int]:
    if end_id is not None:
        assert (source.pop(), target[-1]) == (end_id, end_id)
    last = target.pop()
    parts: dict[int, list[int]] = {}
    for token in target:
        if token >= 100:
            parts[token] = []
            mark = token
        else:
            parts[mark].append(token)
    assert all(parts.values()), "an empty gap"
    assert list(parts) == list(range(100, 100 + len(parts)))
    assert end_id is not None or last == 100 + len(parts)
    assert [token for token in source if token >= 100] == list(parts)
    return [one for token in source for one in parts.get(token, [token])]


def test_gaps_are_everywhere_alike() -> None:
    """The share that is taken out, and that sequences differ."""
    lengths = lengths_of(64, 0.15, 3.0)
    masks = np.stack([gaps(lengths, np.random.PCG64([seed])) for seed in range(4000)])
    assert (masks.sum(1) == lengths.noise).all()
    assert not masks[:, 0].any()  # it begins with text
    share = masks[:, 10:-10].mean(0)
    assert share == pytest.approx(lengths.noise / lengths.text, abs=0.05)
    assert len({mask.tobytes() for mask in masks}) > 3500


def test_every_way_of_cutting_is_as_likely() -> None:
    """Three of seven tokens in two gaps: 3 ways to cut what stays, 2 to cut what goes."""
    found = Counter(
        gaps(Lengths(7, 3, 2, 0, 0), np.random.PCG64([seed])).tobytes() for seed in range(6000)
    )
    assert len(found) == 6
    assert list(found.values()) == pytest.approx([1000] * 6, rel=0.12)


def load(tmp_path: Path, text: str = TEXT, seq_len: int = 32, tokenizer: Any = None, **more: Any) -> Splits:
    path = tmp_path / "text.txt"
    path.write_text(text)
    corpus = TextData(seq_len, path=str(path), validation_fraction=0.2)
    made = tokenizer or byte.train([])
    return SpanCorruptionData(corpus, seq_len, **more).load(lambda texts: made, tmp_path)


def test_a_sequence_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    one, two = load(tmp_path).train, load(tmp_path).train
    assert same(one.batch([3, 1]), two.batch([3, 1]))
    assert same(one.batch([1]), rows(two.batch([3, 1]), 1))
    assert not same(one.batch([3]), load(tmp_path, seed=1).train.batch([3]))


def same(a: Batch, b: Batch) -> bool:
    return all(x is y or torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def rows(batch: Batch, row: int) -> Batch:
    return Batch(**{name: None if v is None else v[row : row + 1] for name, v in vars(batch).items()})


def test_epochs_have_other_gaps_and_a_step_may_cross_them(tmp_path: Path) -> None:
    train = load(tmp_path).train
    loader = Loader(train, 7, seed=3)
    assert len(train) % 7
    n = len(train)
    epochs = [loader.indices(step) for step in range(n)]
    assert any(len({epoch for epoch, _ in step}) == 2 for step in epochs), "no step crosses an epoch"
    batches = [loader.batch(step) for step in range(n)]
    assert all(b.source is not None and b.source.shape == (7, 32) for b in batches)
    assert not same(train.shifted(1).batch([0]), train.shifted(1 + lengths_of(32, 0.15, 3.0).text).batch([0]))


def test_the_tokenizer_grows_by_the_sentinels(tmp_path: Path) -> None:
    splits = load(tmp_path, n_sentinels=7)
    assert isinstance(splits.tokenizer, SentinelTokenizer)
    assert splits.tokenizer.vocab_size == 259 + 7
    assert splits.train.bytes_per_target is None
    batch = splits.train.batch([0])
    assert batch.source is not None
    assert set(sentinels_of(splits.tokenizer)) & set(batch.source[0].tolist())
    assert batch.source[0, -1] == splits.tokenizer.eos_id
    # in evaluation the tokenizer of the checkpoint comes back, and stays as it is
    again = load(tmp_path, tokenizer=splits.tokenizer, n_sentinels=7)
    assert again.tokenizer is splits.tokenizer


def test_without_an_end_the_next_sentinel_ends_the_target(tmp_path: Path) -> None:
    splits = load(tmp_path, tokenizer=character.train([TEXT]), n_sentinels=9)
    batch, gap_ids = splits.train.batch([0]), sentinels_of(splits.tokenizer)
    assert batch.targets is not None
    marks = [token for token in batch.targets[0].tolist() if token in gap_ids]
    assert marks == gap_ids[: len(marks)]
    assert batch.targets[0, -1] == marks[-1]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seq_len": 2}, "seq_len"),
        ({"seq_len": 400}, "seq_len"),  # validation is shorter
        ({"noise_density": 0.9}, "noise_density"),
        ({"n_sentinels": 1}, "n_sentinels"),
        ({"n_sentinels": 2, "tokenizer": character.train([TEXT])}, "n_sentinels"),  # one more for the end
        ({"text": "a"}, "corpus.validation_fraction"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **changes)
    assert caught.value.key == key


def test_what_is_no_run_of_tokens(tmp_path: Path) -> None:
    class Other:
        seq_len = 32

        def load(self, make_tokenizer: Any, cache: Path) -> Splits:
            return Splits([], [], byte.train([]))  # type: ignore[arg-type]

        def fingerprint(self) -> str:
            return ""

    with pytest.raises(ConfigError, match="one run of tokens") as caught:
        SpanCorruptionData(Other(), 32).load(lambda texts: byte.train([]), tmp_path)
    assert caught.value.key == "corpus"


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    data = SpanCorruptionData(TextData(32, path=str(tmp_path / "no.txt")), 32)
    with pytest.raises(ConfigError) as caught:
        data.fingerprint()
    assert caught.value.key == "corpus.path"
