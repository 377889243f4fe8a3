"""A unigram language model over pieces of words, trained with Hugging Face `tokenizers`.

Of all ways to write a word with the vocabulary's pieces the most probable is taken, each piece's probability
being independent of the others (Kudo 2018, https://arxiv.org/abs/1804.10959, section 3.2). Words are those of
GPT-2's rule, spaces included, and a character outside of the vocabulary is written in bytes (as in
SentencePiece's ``byte_fallback``). Nothing is normalised, so that any text comes back unchanged.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import tokenizers
from pydantic import Field
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from llm.tokenizers.base import SPECIAL_TOKENS, pieces, well_formed
from llm.tokenizers.ranks import GPT2
from llm.tokenizers.trained import N_BYTES, TrainedTokenizer, read_backend
from llm.types import ConfigError

UNKNOWN = "<unk>"
"""The model must name one; with all bytes in the vocabulary no text is ever written with it."""

FIXED = (*SPECIAL_TOKENS, UNKNOWN, *(f"<0x{value:02X}>" for value in range(N_BYTES)))
"""What comes first, in the order of the ids. The rule for words cuts each of these names in several."""

DIGITS = 5
"""Of a score after the point. The library adds in an order that differs from run to run."""


class UnigramTokenizer(TrainedTokenizer):
    """A trained unigram model with bytes to fall back on."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        super().__init__(backend)
        names = [backend.id_to_token(index) or "" for index in range(self.vocab_size)]
        self._bytes = [name.encode() for name in names]
        for value in range(N_BYTES):
            index = backend.token_to_id(f"<0x{value:02X}>")
            if index is not None:
                self._bytes[index] = bytes([value])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens by their names."""
        written = b"".join(self._bytes[index] for index in ids if 0 <= index < self.vocab_size)
        return written.decode("utf-8", "replace")


def train(
    texts: Iterable[str],
    *,
    vocab_size: Annotated[int, Field(gt=len(FIXED))] = 8192,
    character_coverage: Annotated[float, Field(gt=0, le=1)] = 0.9995,
    max_piece_length: Annotated[int, Field(ge=1)] = 16,
) -> UnigramTokenizer:
    """Learns the pieces of `texts` and their probabilities; the same texts give the same vocabulary.

    Args:
        texts: what to learn from, in any number of pieces; kept in memory.
        vocab_size: ids in all: 3 special tokens, ``<unk>``, 256 bytes, the rest pieces. Fewer come out when
            the texts do not have so many.
        character_coverage: the share of all characters that the vocabulary's own must cover; rarer ones are
            written in bytes. SentencePiece's default.
        max_piece_length: characters in the longest piece.
    """
    if vocab_size <= len(FIXED):
        mend = f"3 special tokens, {UNKNOWN} and 256 bytes are in it, so at least {len(FIXED) + 1}"
        raise ConfigError("vocab_size", vocab_size, mend)
    parts = [well_formed(part) for text in texts for part in pieces(text)]
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part)
    kept = _frequent(counts, character_coverage)[: vocab_size - len(FIXED)]
    # A rare character ends a word, so that no piece is learned across the place where it stood.
    rare = str.maketrans(dict.fromkeys(counts.keys() - set(kept), "\n"))
    learner = tokenizers.Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Split(Regex(GPT2), "isolated")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - len(FIXED) + 1,
        special_tokens=[UNKNOWN],
        unk_token=UNKNOWN,
        max_piece_length=max_piece_length,
        show_progress=False,
    )
    learned: list[tuple[str, float]] = []
    if kept:
        learner.train_from_iterator((part.translate(rare) for part in parts), trainer)
        learned = _settled(json.loads(learner.to_str())["model"]["vocab"])
    return UnigramTokenizer(_assembled(learned))


def _frequent(counts: Counter[str], coverage: float) -> list[str]:
    """The most frequent characters that make up `coverage` of all."""
    wanted, kept = coverage * counts.total(), []
    for character in sorted(counts, key=lambda one: (-counts[one], one)):
        if wanted <= 0:
            break
        kept.append(character)
        wanted -= counts[character]
    return kept


def _settled(vocabulary: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The pieces the library learned, as every run has them: without what its hash tables leave to chance.

    Characters that are only in the vocabulary because the texts have them get scores in a random order, a
    step of 0.0001 each below the last piece: they all get the lowest. Pieces of one score go by their text.
    """
    learned = [(piece, round(score, DIGITS)) for piece, score in vocabulary if piece != UNKNOWN]
    lowest = min((score for _, score in learned), default=0.0)
    edge = lowest + 0.0001 * (sum(len(piece) == 1 for piece, _ in learned) + 1)
    learned = [(piece, lowest if len(piece) == 1 and score <= edge else score) for piece, score in learned]
    return sorted(learned, key=lambda one: (-one[1], one[0]))


def _assembled(learned: Sequence[tuple[str, float]]) -> tokenizers.Tokenizer:
    """The library's tokenizer of the learned pieces behind the fixed ones."""
    vocabulary = [*((name, 0.0) for name in FIXED), *learned]
    model = models.Unigram(vocabulary, unk_id=FIXED.index(UNKNOWN), byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(GPT2), "isolated")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    return backend


def read(directory: Path) -> UnigramTokenizer:
    """The tokenizer saved in `directory`; for `llm.tokenizers.base.load`."""
    return UnigramTokenizer(read_backend(directory))
