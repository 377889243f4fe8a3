"""A tokenizer with ids above its vocabulary that stand for gaps in a text, as T5's ``<extra_id_0>``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from llm.tokenizers.base import (
    VOCABULARY_FILE,
    TextTokenizer,
    damaged,
    encode_batch,
    load,
    read_json,
    special_ids,
)
from llm.tokenizers.exchange import CONFIG_FILE, write_pretrained
from llm.types import ConfigError, Tokenizer

INNER = "inner"
"""Folder of the tokenizer that does the work."""


class SentinelTokenizer(TextTokenizer):
    """`inner`, and `n_sentinels` special ids after its own (Raffel et al. 2020, section 3.1.4).

    Text never becomes one of them, also when it spells their names.
    """

    def __init__(self, inner: Tokenizer, n_sentinels: int) -> None:
        self.inner, self.n_sentinels = inner, n_sentinels
        self.vocab_size = inner.vocab_size + n_sentinels
        self._names = [sentinel(number) for number in range(n_sentinels)]

    @property
    def special_ids(self) -> Mapping[str, int]:
        """Those of the inner tokenizer, then the sentinels."""
        own = {name: self.inner.vocab_size + number for number, name in enumerate(self._names)}
        return {**special_ids(self.inner), **own}

    @property
    def eos_id(self) -> int | None:
        """The inner tokenizer's."""
        return self.inner.eos_id

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, never a special one."""
        return self.inner.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As fast as the inner tokenizer can."""
        return encode_batch(self.inner, texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens by their names."""
        first, parts = self.inner.vocab_size, []
        for is_sentinel, run in groupby(ids, lambda index: index >= first):
            if is_sentinel:
                parts += [self._names[index - first] for index in run if index < self.vocab_size]
            else:
                parts.append(self.inner.decode(list(run)))
        return "".join(parts)

    def vocabulary(self) -> str:
        """How many sentinels there are; the rest is in the inner tokenizer's folder."""
        return json.dumps({"n_sentinels": self.n_sentinels}) + "\n"

    def save(self, directory: Path) -> None:
        """Writes what `llm.tokenizers.base.load` reads, the inner tokenizer in a folder of its own."""
        self.inner.save(directory / INNER)
        super().save(directory)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes what ``transformers.AutoTokenizer.from_pretrained`` reads, the sentinels as special tokens.

        Raises:
            ConfigError: the inner tokenizer cannot be written so.
        """
        place = Path(folder)
        inner: Any = self.inner
        inner.save_pretrained(place)
        backend = tokenizers.Tokenizer.from_file(str(place / VOCABULARY_FILE))
        backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in self._names])
        config = read_json(place / CONFIG_FILE)
        config["additional_special_tokens"] = [*config.get("additional_special_tokens", []), *self._names]
        write_pretrained(place, str(backend.to_str(pretty=False)), config)


def sentinel(number: int) -> str:
    """T5's name of a sentinel."""
    return f"<extra_id_{number}>"


def with_sentinels(tokenizer: Tokenizer, n_sentinels: int) -> Tokenizer:
    """`tokenizer` itself when it has so many sentinels, else with so many above its vocabulary.

    Raises:
        ConfigError: it has some, but fewer; they could not be told from the new ones.
    """
    n = len(sentinels_of(tokenizer))
    if n >= n_sentinels:
        return tokenizer
    if n:
        raise ConfigError("n_sentinels", n_sentinels, f"the tokenizer has {n} already; give at most that")
    return SentinelTokenizer(tokenizer, n_sentinels)


def sentinels_of(tokenizer: Tokenizer) -> list[int]:
    """The ids of ``<extra_id_0>``, ``<extra_id_1>`` and so on, as far as the tokenizer has them."""
    found = special_ids(tokenizer)
    ids: list[int] = []
    while (name := sentinel(len(ids))) in found:
        ids.append(found[name])
    return ids


def read(directory: Path) -> SentinelTokenizer:
    """The tokenizer saved in `directory`; for `llm.tokenizers.base.load`."""
    file = directory / VOCABULARY_FILE
    n_sentinels = read_json(file).get("n_sentinels")
    if not isinstance(n_sentinels, int) or isinstance(n_sentinels, bool) or n_sentinels < 1:
        raise damaged(file, "no number of sentinels in it")
    return SentinelTokenizer(load(directory / INNER), n_sentinels)
