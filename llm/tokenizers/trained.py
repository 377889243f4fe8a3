"""What the tokenizers share that are trained here with Hugging Face's `tokenizers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers

from llm.tokenizers.base import (
    END_OF_TEXT,
    SPECIAL_TOKENS,
    VOCABULARY_FILE,
    TextTokenizer,
    damaged,
    read_json,
)
from llm.tokenizers.chat import chat_source, stop_ids
from llm.tokenizers.exchange import described, write_pretrained
from llm.tokenizers.ranks import Encoder

N_BYTES = 256


class TrainedTokenizer(TextTokenizer):
    """A tokenizer of the library's with this room's special tokens. Its ``tokenizer.json`` is the library's.

    Args:
        backend: the library's tokenizer.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        # Without this, text that spells a special token would become that token.
        backend.encode_special_tokens = True
        self._backend, self._encoder = backend, Encoder(backend)
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
        return self._encoder(texts)

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


def read_backend(directory: Path) -> tokenizers.Tokenizer:
    """The library's tokenizer in the ``tokenizer.json`` of `directory`.

    Raises:
        ConfigError: for ``tokenizer``, when the file is missing or damaged.
    """
    file = directory / VOCABULARY_FILE
    read_json(file)  # the library's own errors do not say which file
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise damaged(file, f"not a Hugging Face tokenizer, {error}") from error
