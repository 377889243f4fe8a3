"""Any tokenizer of the open ecosystem: Hugging Face's ``tokenizer.json`` with the files around it.

The vocabulary, the way text is split and the chat template are used as they are; nothing is trained here.
A directory that transformers left is read as it stands, and what `HuggingFaceTokenizer.save` writes
transformers reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from llm.tokenizers.base import END_OF_TEXT, TextTokenizer, well_formed
from llm.tokenizers.exchange import read_pretrained, write_pretrained
from llm.tokenizers.ranks import Encoder
from llm.tokenizers.trained import read_backend

NOBODYS = "\U0010fffd"
"""A character for private use, which no vocabulary has learned."""


class HuggingFaceTokenizer(TextTokenizer):
    """A tokenizer that came from elsewhere, kept to this room's rule: text never becomes a special id.

    Attributes:
        bos_id: the id that starts a document, None when there is none.
        opening_ids: what the model was trained to find ahead of a text: the start of a document, or nothing.
            `encode` never adds it, for it cannot know where a text begins.
        chat_template: the Jinja source of its template, None when it has none.
        answer_end_ids: ids that end an answer, by the files it came with; `eos_id` is one of them.
        config: the content of its ``tokenizer_config.json``.

    Args:
        backend: the library's tokenizer.
        config: as `read_pretrained` gives it.
        answer_end_ids: more ids that end an answer.
    """

    eos_id: int | None = None

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: Mapping[str, Any],
        answer_end_ids: Sequence[int] = (),
    ) -> None:
        # Padding and truncation are set per batch by whoever trains with the library; a text is whole here.
        backend.no_padding()
        backend.no_truncation()
        self.config = dict(config)
        self.chat_template: str | None = config.get("chat_template")
        self.vocab_size: int = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._added = backend.get_added_tokens_decoder()
        named = {key: config[key] for key in ("bos_token", "eos_token", "pad_token") if config.get(key)}
        ids = {key: backend.token_to_id(name) for key, name in named.items()}
        self.eos_id, self.bos_id = ids.get("eos_token"), ids.get("bos_token")
        special = {token.content: index for index, token in self._added.items() if token.special}
        special |= {name: ids[key] for key, name in named.items() if ids[key] is not None}
        # What the model writes for a character that it does not know is text.
        unknown = _unknown(backend)
        special = {name: index for name, index in special.items() if index not in unknown}
        self._special = dict(sorted(special.items(), key=lambda item: item[1]))
        begun: list[int] = backend.encode("", add_special_tokens=True).ids
        adds_bos = config.get("add_bos_token")
        if adds_bos is None:
            adds_bos = begun[:1] == [self.bos_id]
        self.opening_ids = (self.bos_id,) if adds_bos and self.bos_id is not None else ()
        ends = [self.eos_id, *answer_end_ids, self._special.get(END_OF_TEXT)]
        self.answer_end_ids = tuple(dict.fromkeys(index for index in ends if index is not None))
        self._starts_anew = _starts_anew(backend, self._added)
        # From here on text that spells a special token stays text.
        backend.encode_special_tokens = True
        self._backend, self._encoder = backend, Encoder(backend)

    @property
    def special_ids(self) -> Mapping[str, int]:
        """The id of each special token, in the order of the ids."""
        return self._special

    @cached_property
    def paddings(self) -> Mapping[str, tuple[bool, bool]]:
        """Of each special token, whether it takes the white space on its left and on its right with it."""
        return {token.content: (token.lstrip, token.rstrip) for token in self._added.values()}

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, never a special one, and nothing ahead of them."""
        try:
            ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        except TypeError:  # the library's answer to a lone surrogate
            ids = self._backend.encode(well_formed(text), add_special_tokens=False).ids
        return self._plain(ids, text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """In parallel over the texts (TOKENIZERS_PARALLELISM=false, RAYON_NUM_THREADS=n)."""
        return [self._plain(ids, text) for ids, text in zip(self._encoder(texts), texts, strict=True)]

    def _plain(self, ids: list[int], text: str) -> list[int]:
        """`ids` of `text`, without special ones.

        Some vocabularies hold a special token's name as a word like any other (a unigram model does): there
        the name is cut in two.
        """
        found = set(ids) & set(self._special.values())
        if not found:
            return ids
        names = [name for name, index in self._special.items() if index in found and name in text]
        if not names:
            return [index for index in ids if index not in found]
        name = max(names, key=len)
        before, after = text.split(name, 1)
        parts = [before, name[:1], name[1:], after]
        written: list[int] = []
        for part in parts:
            written += (self.continued(part) if written else self.encode(part)) if part else []
        return written

    def continued(self, text: str) -> list[int]:
        """The ids of text that goes on from other text: no space is put ahead, as where a text begins."""
        head = self._head
        if not head:
            return self.encode(text)
        ids = self.encode(NOBODYS + text)
        return ids[len(head) :] if ids[: len(head)] == head else self.encode(text)

    def after_special(self, text: str) -> list[int]:
        """The ids of text that follows a special token, as the library encodes it there."""
        return self.encode(text) if self._starts_anew else self.continued(text)

    @cached_property
    def _head(self) -> list[int]:
        """The ids of what is set ahead of text that goes on; none where a text begins as it goes on."""
        try:
            head, whole = self.encode(NOBODYS), self.encode(f"{NOBODYS}a")
        except Exception:  # the library's answer when the vocabulary cannot write it
            return []
        return head if whole[len(head) :] != self.encode("a") else []

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens by their names."""
        known = [index for index in ids if 0 <= index < self.vocab_size]
        text: str = self._backend.decode(known, skip_special_tokens=False)
        return text

    def vocabulary(self) -> str:
        """Hugging Face's ``tokenizer.json``."""
        return str(self._backend.to_str(pretty=False))

    def save(self, directory: Path) -> None:
        """Writes what `llm.tokenizers.base.load` reads, and transformers too."""
        super().save(directory)
        self.save_pretrained(directory)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes what ``transformers.AutoTokenizer.from_pretrained`` reads, the chat template with it."""
        config = {key: value for key, value in self.config.items() if value is not None}
        write_pretrained(Path(folder), self.vocabulary(), config, stop_ids=self.answer_end_ids)


def _unknown(backend: tokenizers.Tokenizer) -> set[int]:
    """The ids that stand for what the vocabulary cannot write; none where it can write everything."""
    try:
        return set(backend.encode(NOBODYS, add_special_tokens=False).ids)
    except Exception:  # the library's answer when the vocabulary has no such id
        return set()


def _starts_anew(backend: tokenizers.Tokenizer, added: Mapping[int, Any]) -> bool:
    """Whether text behind a special token is encoded as the start of a text is.

    Where a vocabulary writes a word with the space ahead of it, some tokenizers put that space at the start
    of the whole text only, others behind each special token as well.
    """
    for index, token in added.items():
        if token.special and not token.rstrip and not token.single_word:
            ids: list[int] = backend.encode(f"{token.content}a", add_special_tokens=False).ids
            if ids[:1] == [index]:
                return ids[1:] == backend.encode("a", add_special_tokens=False).ids
    return True


def read(directory: Path) -> HuggingFaceTokenizer:
    """The tokenizer in `directory`, saved here or by transformers; for `llm.tokenizers.base.load`."""
    return HuggingFaceTokenizer(read_backend(directory), *read_pretrained(directory))
