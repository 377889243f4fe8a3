"""task=tokenize end to end: what it leaves is what data=packed reads."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from llm.data.packed import PackedData, PackedTokens
from llm.runs.run import Run
from llm.tasks.tokenize import tokenize
from llm.tokenizers import bpe, character
from llm.types import ConfigError, Tokenizer

TRAIN = [f"def function_{i}(argument):\n    return argument + {i}\n" for i in range(200)]
VALIDATION = ["def other(argument):\n    return argument ü\n"] * 3


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[str, str]:
    paths = []
    for name, texts in (("train", TRAIN), ("validation", VALIDATION)):
        path = tmp_path / f"{name}.parquet"
        pl.DataFrame({"id": [str(i) for i in range(len(texts))], "text": texts}).write_parquet(path)
        paths.append(str(path))
    return paths[0], paths[1]


def never(texts: object) -> Tokenizer:
    raise AssertionError


def run_in(directory: Path) -> Run:
    return Run(directory, seed=0, name="test")


def test_what_it_leaves_is_what_packed_data_reads(tmp_path: Path, corpus: tuple[str, str]) -> None:
    run = run_in(tmp_path / "run")
    tokenize(run=run, train=corpus[0], validation=corpus[1], tokenizer=partial(bpe.train, vocab_size=400))
    train, validation, tokenizer = PackedData(str(run.directory), 16).load(never, tmp_path)
    assert isinstance(train, PackedTokens)
    assert isinstance(validation, PackedTokens)
    assert tokenizer.decode(train.tokens.tolist()) == "".join(text + "<|endoftext|>" for text in TRAIN)
    assert tokenizer.decode(validation.tokens.tolist()) == "".join(
        text + "<|endoftext|>" for text in VALIDATION
    )

    n_bytes = sum(len(text.encode()) for text in TRAIN)
    assert run.summary["tokens"] == run.summary["train_tokens"] == len(train.tokens)
    assert run.summary["train_bytes_per_token"] == n_bytes / len(train.tokens) == train.bytes_per_target
    assert run.summary["train_bytes_per_token"] > 3
    assert set(run.data) == {"train", "validation"}
    line = json.loads((run.directory / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["validation_tokens"] == len(validation.tokens)
    assert line["vocab_size"] == tokenizer.vocab_size


def test_the_same_corpus_gives_the_same_bytes(tmp_path: Path, corpus: tuple[str, str]) -> None:
    names = ["train.bin", "train.json", "validation.bin", "tokenizer/tokenizer.json"]
    found = []
    for number in (0, 1):
        run = Run(tmp_path / str(number), seed=number, name="test")
        tokenize(run=run, train=corpus[0], validation=corpus[1], tokenizer=bpe.train, sample_bytes=3000)
        found.append([(run.directory / name).read_bytes() for name in names])
    assert found[0] == found[1]


def test_characters_are_those_of_all_documents_however_small_the_sample(
    tmp_path: Path, corpus: tuple[str, str]
) -> None:
    run = run_in(tmp_path / "run")
    tokenize(
        run=run,
        train=corpus[0],
        validation=corpus[1],
        tokenizer=partial(character.train, special_tokens=True),
        sample_bytes=1,
    )
    _, validation, tokenizer = PackedData(str(run.directory), 16).load(never, tmp_path)
    assert isinstance(validation, PackedTokens)
    assert tokenizer.decode(validation.tokens.tolist()) == "".join(
        text + "<|endoftext|>" for text in VALIDATION
    )


def test_characters_without_special_tokens_still_write_documents(
    tmp_path: Path, corpus: tuple[str, str]
) -> None:
    run = run_in(tmp_path / "run")
    tokenize(run=run, train=corpus[0], validation=corpus[1], tokenizer=character.train)
    _, validation, tokenizer = PackedData(str(run.directory), 16).load(never, tmp_path)
    assert isinstance(validation, PackedTokens)
    assert tokenizer.decode(validation.tokens.tolist()) == "".join(text + "\n\n" for text in VALIDATION)


def test_documents_without_any_line_end(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"text": ["ab", "ba"]}).write_parquet(path)
    run = run_in(tmp_path / "run")
    tokenize(run=run, train=str(path), validation=str(path), tokenizer=character.train)
    assert json.loads((run.directory / "train.json").read_text())["n_tokens"] == 8


def test_text_files_will_do(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("some words\n" * 100)
    (tmp_path / "validation.txt").write_text("other words\n")
    run = run_in(tmp_path / "run")
    paths = [str(tmp_path / f"{split}.txt") for split in ("train", "validation")]
    tokenize(run=run, train=paths[0], validation=paths[1], tokenizer=bpe.train)
    assert PackedData(str(run.directory), 16).load(never, tmp_path).tokenizer.eos_id is not None
    assert run.summary["train_documents"] == 1


def test_a_large_corpus_has_shards(tmp_path: Path, corpus: tuple[str, str]) -> None:
    whole, cut = run_in(tmp_path / "whole"), run_in(tmp_path / "cut")
    for run, shard_bytes in ((whole, 1 << 30), (cut, 1000)):
        tokenize(run=run, train=corpus[0], validation=corpus[1], tokenizer=bpe.train, shard_bytes=shard_bytes)
    assert not (cut.directory / "train.bin").exists()
    assert (cut.directory / "validation.bin").exists()
    assert whole.summary == cut.summary
    one, many = (PackedData(str(run.directory), 16).load(never, tmp_path).train for run in (whole, cut))
    assert len(one) == len(many)
    for batches in (range(len(one)), [3, 1]):
        assert one.batch(batches).tokens.tolist() == many.batch(batches).tokens.tolist()


def test_a_missing_file_is_named_before_anything_is_written(tmp_path: Path, corpus: tuple[str, str]) -> None:
    run = run_in(tmp_path / "run")
    with pytest.raises(ConfigError) as caught:
        tokenize(run=run, train=corpus[0], validation=str(tmp_path / "no.parquet"), tokenizer=bpe.train)
    assert caught.value.key == "validation"
    assert not (run.directory / "tokenizer").exists()
