"""task=tokenize: a tokenizer learned from a corpus, and the corpus as packed tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Annotated

from pydantic import Field

from llm import runtime
from llm.data.documents import Documents
from llm.data.packing import DOCUMENT_BREAK, PackedInfo, pack
from llm.data.shards import Source, pack_shards
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
    shard_bytes: Annotated[int, Field(ge=1)] = 1 << 30,
    n_workers: Annotated[int, Field(ge=1)] = 1,
) -> None:
    """Trains a tokenizer on `train` and writes both splits as packed tokens.

    The run's directory gets ``tokenizer/``, ``train.bin`` with ``train.idx`` and ``train.json``, and the
    same of ``validation``: what ``data=packed`` reads. After each document stands the end-of-text id. A
    split with more than `shard_bytes` of text has shards instead, in a folder ``train``; a stage that was
    cut off keeps those that are whole.

    Args:
        run: Where the outputs go.
        train: Documents to learn from: a parquet file with a column `text`, or a text file (one document).
        validation: Documents for measuring, in the same form.
        tokenizer: Makes a tokenizer from texts.
        sample_bytes: How much of `train` a vocabulary is learned from, in bytes; more hardly changes it.
        shard_bytes: How much text a shard has at most, in bytes of UTF-8. A document is never cut.
        n_workers: Processes that encode shards at the same time. It changes no byte of what is written.
    """
    if runtime.is_main():
        splits = {"train": train, "validation": validation}
        documents = {split: Documents(path, key=split) for split, path in splits.items()}
        sources = {split: Source(path, split, digest([path], key=split)) for split, path in splits.items()}
        for split, source in sources.items():
            run.note_data(split, source.digest)
        learned = _learn(run, documents, tokenizer, sample_bytes)
        found: dict[str, PackedInfo] = {}
        for split, source in sources.items():
            found[split] = _pack(run, documents[split], source, learned, shard_bytes, n_workers)
            if found[split].n_tokens < 2:
                raise ConfigError(split, found[split].n_tokens, "too few tokens: at least 2 are needed")
        _report(run, learned, found)
    runtime.broadcast(None)  # the other processes wait: they may want to read what is written here


def _learn(
    run: Run,
    documents: dict[str, Documents],
    make_tokenizer: Callable[[Iterable[str]], Tokenizer],
    sample_bytes: int,
) -> Tokenizer:
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
    return tokenizer


def _pack(
    run: Run, documents: Documents, source: Source, tokenizer: Tokenizer, shard_bytes: int, n_workers: int
) -> PackedInfo:
    stem = run.directory / source.key
    with run.progress(f"tokenize {source.key}", documents.n_bytes, unit="bytes") as progress:
        if documents.n_bytes <= shard_bytes:
            return pack(stem, documents, tokenizer, progress.advance)
        return pack_shards(
            stem,
            source,
            run.directory / "tokenizer",
            shard_bytes=shard_bytes,
            n_workers=n_workers,
            advance=progress.advance,
        )


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
