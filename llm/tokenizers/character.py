"""One token per character: the vocabulary is the sorted set of characters of the texts, as in nanoGPT.

tinyshakespeare gives nanoGPT's 65 ids in nanoGPT's order (``data/shakespeare_char/prepare.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from llm.tokenizers.base import (
    END_OF_TEXT,
    SPECIAL_TOKENS,
    VOCABULARY_FILE,
    Corpus,
    TextTokenizer,
    damaged,
    read_json,
)
from llm.tokenizers.chat import chat_source, stop_ids
from llm.tokenizers.exchange import described, write_pretrained
from llm.types import ConfigError


class CharacterTokenizer(TextTokenizer):
    """Ids are places in `characters`; special tokens, when wanted, come after them."""

    def __init__(self, characters: Sequence[str], special_tokens: Sequence[str] = ()) -> None:
        self._characters = list(characters)
        self._special = {name: len(self._characters) + index for index, name in enumerate(special_tokens)}
        self._ids = {character: index for index, character in enumerate(self._characters)}
        self._names = [*self._characters, *special_tokens]
        self.vocab_size = len(self._names)

    @property
    def special_ids(self) -> Mapping[str, int]:
        """The id of each special token."""
        return self._special

    def encode(self, text: str) -> list[int]:
        """The ids of `text`.

        Raises:
            ConfigError: when a character is not in the vocabulary; the message names it and its place.
        """
        ids = self._ids
        try:
            return [ids[character] for character in text]
        except KeyError as error:
            character = str(error.args[0])
            place = text.index(character)
            mend = (
                f"knows {len(self._characters)} characters, and {character!r} (U+{ord(character):04X}, at "
                f"{place} in the text) is not one of them; leave it out, or use tokenizer=bpe or byte"
            )
            raise ConfigError("tokenizer", "character", mend) from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens by their names."""
        return "".join(self._names[index] for index in ids if 0 <= index < self.vocab_size)

    def vocabulary(self) -> str:
        """The characters in the order of their ids."""
        # Escaped to ASCII: a lone surrogate or a control character survives, and an editor shows all.
        content = {"characters": self._characters, "special_tokens": list(self._special)}
        return json.dumps(content, ensure_ascii=True) + "\n"

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes what transformers reads: each character a word of its own.

        A character that is not in the vocabulary is an error here; there, it is an error of the library.

        Raises:
            ConfigError: a character of the vocabulary cannot be written as UTF-8.
        """
        vocabulary = dict(self._ids)
        if any(0xD800 <= ord(character) < 0xE000 for character in vocabulary):
            mend = "holds half of a surrogate pair, which other programs cannot read; clean the texts"
            raise ConfigError("tokenizer", "character", mend)
        backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=""))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        backend.decoder = decoders.Fuse()
        backend.add_special_tokens([AddedToken(name, normalized=False) for name in self._special])
        config = described(
            tuple(self._special), END_OF_TEXT if self._special else None, chat_source(self._special)
        )
        write_pretrained(Path(folder), backend.to_str(), config, stop_ids=stop_ids(self._special))


def train(texts: Iterable[str], *, special_tokens: bool = False) -> CharacterTokenizer:
    """The vocabulary of all characters of `texts` (of a `Corpus`: of everything, also of validation).

    Args:
        texts: where to find the characters.
        special_tokens: also give ids to the end of a document and the chat markers (needed to chat). Without
            them the vocabulary is nanoGPT's, and documents are set apart by a blank line.
    """
    found: set[str] = set()
    for text in texts.everything if isinstance(texts, Corpus) else texts:
        found.update(text)
    if not found:
        raise ConfigError("tokenizer", "character", "the texts to build the vocabulary from are empty")
    return CharacterTokenizer(sorted(found), SPECIAL_TOKENS if special_tokens else ())


def read(directory: Path) -> CharacterTokenizer:
    """The tokenizer saved in `directory`; for `llm.tokenizers.base.load`."""
    file = directory / VOCABULARY_FILE
    content = read_json(file)
    characters, special_tokens = content.get("characters"), content.get("special_tokens")
    sound = (
        isinstance(characters, list)
        and characters
        and all(isinstance(character, str) and len(character) == 1 for character in characters)
        and len(set(characters)) == len(characters)
        and special_tokens in ([], list(SPECIAL_TOKENS))
    )
    if not sound or not isinstance(characters, list) or not isinstance(special_tokens, list):
        raise damaged(file, "no list of distinct characters in it")
    return CharacterTokenizer(characters, special_tokens)
