"""One token per byte of UTF-8, and the special tokens after them: nothing to train, any text can be written.

As ByT5 does (Xue et al. 2022, https://arxiv.org/abs/2105.13626, section 3).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from llm.tokenizers.base import (
    END_OF_TEXT,
    SPECIAL_TOKENS,
    VOCABULARY_FILE,
    TextTokenizer,
    damaged,
    read_json,
    well_formed,
)
from llm.tokenizers.chat import chat_source, stop_ids
from llm.tokenizers.exchange import byte_alphabet, described, write_pretrained

N_BYTES = 256


class ByteTokenizer(TextTokenizer):
    """Ids 0 to 255 are the bytes, 256 to 258 the special tokens."""

    vocab_size = N_BYTES + len(SPECIAL_TOKENS)

    def __init__(self) -> None:
        self._special = {name: N_BYTES + index for index, name in enumerate(SPECIAL_TOKENS)}
        self._bytes = [bytes([value]) for value in range(N_BYTES)] + [
            name.encode() for name in SPECIAL_TOKENS
        ]

    @property
    def special_ids(self) -> Mapping[str, int]:
        """The id of each special token."""
        return self._special

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, never a special one."""
        try:
            return list(text.encode())
        except UnicodeEncodeError:
            return list(well_formed(text).encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens by their names."""
        return b"".join(self._bytes[index] for index in ids if 0 <= index < self.vocab_size).decode(
            "utf-8", "replace"
        )

    def vocabulary(self) -> str:
        """What the ids mean, for a reader; nothing here is learned."""
        return json.dumps({"n_bytes": N_BYTES, "special_tokens": list(SPECIAL_TOKENS)}) + "\n"

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes what transformers reads: a byte-level vocabulary without a single merge."""
        vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())}
        backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL_TOKENS])
        config = described(SPECIAL_TOKENS, END_OF_TEXT, chat_source(self._special))
        write_pretrained(Path(folder), backend.to_str(), config, stop_ids=stop_ids(self._special))


def train(texts: Iterable[str]) -> ByteTokenizer:  # noqa: ARG001  (the shape every tokenizer config has)
    """The byte tokenizer; `texts` are not read."""
    return ByteTokenizer()


def read(directory: Path) -> ByteTokenizer:
    """The tokenizer saved in `directory`; for `llm.tokenizers.base.load`."""
    file = directory / VOCABULARY_FILE
    if read_json(file) != {"n_bytes": N_BYTES, "special_tokens": list(SPECIAL_TOKENS)}:
        raise damaged(file, "not the vocabulary of bytes")
    return ByteTokenizer()
