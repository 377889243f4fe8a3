"""Byte-level byte-pair encoding, trained with Hugging Face `tokenizers`.

Merges of frequent pairs (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909, section 3.2) over the 256
bytes with GPT-2's splitting into words (Radford et al. 2019, section 2.2). All bytes are in the vocabulary
before the first merge, so any text can be written and comes back unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import tokenizers
from pydantic import Field
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from llm.tokenizers.base import (
    END_OF_TEXT,
    SPECIAL_TOKENS,
    VOCABULARY_FILE,
    TextTokenizer,
    damaged,
    pieces,
    read_json,
    well_formed,
)
from llm.tokenizers.chat import chat_source, stop_ids
from llm.tokenizers.exchange import described, write_pretrained
from llm.types import ConfigError

N_BYTES = 256


class BytePairTokenizer(TextTokenizer):
    """A trained byte-level BPE. Its ``tokenizer.json`` is Hugging Face's own format."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        # Without this, text that spells a special token would become that token.
        backend.encode_special_tokens = True
        self._backend = backend
        self.vocab_size: int = backend.get_vocab_size()
        self._special = {
            name: index for name in SPECIAL_TOKENS if (index := backend.token_to_id(name)) is not None
        }

    @property
    def special_ids(self) -> Mapping[str, int]:
        """The id of each special token."""
        return self._special

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, never a special one."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """In parallel over the texts (TOKENIZERS_PARALLELISM=false, RAYON_NUM_THREADS=n)."""
        try:
            encoded = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:  # the library's answer to a lone surrogate
            clean = [well_formed(text) for text in texts]
            encoded = self._backend.encode_batch_fast(clean, add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens by their names."""
        known = [index for index in ids if 0 <= index < self.vocab_size]
        text: str = self._backend.decode(known, skip_special_tokens=False)
        return text

    def vocabulary(self) -> str:
        """Hugging Face's ``tokenizer.json``."""
        return str(self._backend.to_str(pretty=False))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes what ``transformers.AutoTokenizer.from_pretrained`` reads, ChatML as its template."""
        eos = END_OF_TEXT if END_OF_TEXT in self._special else None
        config = described(tuple(self._special), eos, chat_source(self._special))
        write_pretrained(Path(folder), self.vocabulary(), config, stop_ids=stop_ids(self._special))


def train(
    texts: Iterable[str],
    *,
    vocab_size: Annotated[int, Field(ge=N_BYTES + len(SPECIAL_TOKENS))] = 8192,
    min_frequency: Annotated[int, Field(ge=1)] = 2,
) -> BytePairTokenizer:
    """Learns the merges of `texts`; the same texts give the same vocabulary, whatever the thread count.

    Args:
        texts: what to learn from, in any number of pieces.
        vocab_size: ids in all: 3 special tokens, 256 bytes, the rest merges. Fewer come out when the texts
            have no pair left that occurs `min_frequency` times.
        min_frequency: how often a pair must occur to be merged.
    """
    if vocab_size < N_BYTES + len(SPECIAL_TOKENS):
        raise ConfigError("vocab_size", vocab_size, "256 bytes and 3 special tokens need at least 259")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS],
        show_progress=False,
    )
    parts = (well_formed(part) for text in texts for part in pieces(text))
    backend.train_from_iterator(parts, trainer)
    return BytePairTokenizer(backend)


def read(directory: Path) -> BytePairTokenizer:
    """The tokenizer saved in `directory`; for `llm.tokenizers.base.load`."""
    file = directory / VOCABULARY_FILE
    read_json(file)  # the library's own errors do not say which file
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise damaged(file, f"not a Hugging Face tokenizer, {error}") from error
    return BytePairTokenizer(backend)
