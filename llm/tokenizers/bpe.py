"""Byte-level byte-pair encoding, trained with Hugging Face `tokenizers`.

Merges of frequent pairs (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909, section 3.2) over the 256
bytes with GPT-2's splitting into words (Radford et al. 2019, section 2.2). All bytes are in the vocabulary
before the first merge, so any text can be written and comes back unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import tokenizers
from pydantic import Field
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from llm.tokenizers.base import SPECIAL_TOKENS, pieces, well_formed
from llm.tokenizers.trained import N_BYTES, TrainedTokenizer, read_backend
from llm.types import ConfigError


class BytePairTokenizer(TrainedTokenizer):
    """A trained byte-level BPE."""


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
    return BytePairTokenizer(read_backend(directory))
