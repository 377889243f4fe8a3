"""task=tokenize: a tokenizer learned from a corpus, and the corpus as packed tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Annotated

from pydantic import Field

from llm import runtime
from llm.data.documents import Documents
from llm.data.packing import DOCUMENT_BREAK, PackedInfo, pack
from llm.inputs import digest
from llm.runs.run import Run
from llm.tokenizers.base import Corpus
from llm.types import ConfigError, Tokenizer

VERSION = 1


def tokenize(
    *,
    run: Run,
    train: str,
    validation: str,
    tokenizer: Callable[[Iterable[str]], Tokenizer],
    sample_bytes: Annotated[int, Field(ge=1)] = 20_000_000,
) -> None:
    """Trains a tokenizer on `train` and writes both splits as packed tokens.

    The run's directory gets ``tokenizer/``, ``train.bin`` with ``train.json`` and ``validation.bin`` with
    ``validation.json``: what ``data=packed`` reads. After each document stands the end-of-text id.

    Args:
        run: Where the outputs go.
        train: Documents to learn from: a parquet file with a column `text`, or a text file (one document).
        validation: Documents for measuring, in the same form.
        tokenizer: Makes a tokenizer from texts.
        sample_bytes: How much of `train` a vocabulary is learned from, in bytes; more hardly changes it.
    """
    if runtime.is_main():
        splits = {"train": train, "validation": validation}
        documents = {split: Documents(path, key=split) for split, path in splits.items()}
        for split, path in splits.items():
            run.note_data(split, digest([path], key=split))
        _tokenize(run, documents, tokenizer, sample_bytes)
    runtime.broadcast(None)  # the other processes wait: they may want to read what is written here


def _tokenize(
    run: Run,
    documents: dict[str, Documents],
    make_tokenizer: Callable[[Iterable[str]], Tokenizer],
    sample_bytes: int,
) -> None:
    with run.progress("learn the vocabulary", None, unit="bytes") as progress:

        def counted(texts: Iterable[str]) -> Iterator[str]:
            for text in texts:
                yield text
                progress.advance(len(text.encode()))

        everything = chain(*documents.values(), [DOCUMENT_BREAK])
        tokenizer = make_tokenizer(
            Corpus(counted(documents["train"].sample(sample_bytes)), counted(everything))
        )
    tokenizer.save(run.directory / "tokenizer")
    run.say(f"tokenizer: {tokenizer.vocab_size:,} ids")

    found: dict[str, PackedInfo] = {}
    for split, texts in documents.items():
        with run.progress(f"tokenize {split}", texts.n_bytes, unit="bytes") as progress:
            found[split] = pack(run.directory / split, texts, tokenizer, progress.advance)
        if found[split].n_tokens < 2:
            raise ConfigError(split, found[split].n_tokens, "too few tokens: at least 2 are needed")
    _report(run, tokenizer, found)


def _report(run: Run, tokenizer: Tokenizer, found: dict[str, PackedInfo]) -> None:
    metrics: dict[str, float] = {"vocab_size": tokenizer.vocab_size}
    for split, info in found.items():
        bytes_per_token = info.n_bytes / info.n_tokens
        metrics |= {
            f"{split}_tokens": info.n_tokens,
            f"{split}_documents": info.n_documents,
            f"{split}_bytes_per_token": bytes_per_token,
        }
        run.say(
            f"{split}: {info.n_documents:,} documents, {info.n_bytes:,} bytes, {info.n_tokens:,} tokens "
            f"({bytes_per_token:.2f} bytes per token)"
        )
    run.log(metrics, step=0)
    run.summary.update(metrics, tokens=found["train"].n_tokens)
