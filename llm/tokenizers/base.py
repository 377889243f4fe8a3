"""What every tokenizer shares: the special tokens, how one is saved and loaded, and fast batches.

A tokenizer directory holds plain JSON and nothing that could run: ``kind.json`` names the module of this
room that understands it, ``tokenizer.json`` holds the vocabulary. Without that file, and with transformers'
``tokenizer_config.json``, it is a directory of the open ecosystem: the kind ``huggingface``. A new kind is
one module with three things: a function ``train(texts, ...)`` for configs to name, a class, and
``read(directory)``.

Text and special tokens never mix. `encode` turns *any* text into plain tokens, also text that spells
``<|im_end|>``; special ids are put in by code only (the chat template, the separator of documents). So
nobody can end the assistant's turn, or start a system turn, by typing it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm import files
from llm.types import ConfigError, Tokenizer

END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END)
"""In the order of their ids: a document's end (GPT-2's name for it) and ChatML's two markers."""

KIND_FILE = "kind.json"
VOCABULARY_FILE = "tokenizer.json"

PIECE_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class Corpus:
    """Texts to learn a vocabulary from, and all the texts it will have to encode.

    Iterating gives the sample: a byte-level BPE needs no more, since it can write any text, and so never
    sees the validation part. A character vocabulary cannot write a character it has not seen, so it is
    built from `everything`, as nanoGPT's ``prepare.py`` does.
    """

    sample: Iterable[str]
    everything: Iterable[str]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sample)


class TextTokenizer(ABC):
    """A tokenizer of this room. Implements `llm.types.Tokenizer`.

    Ids outside of the vocabulary (a model's embedding may be padded to a round size) decode to nothing;
    special ids decode to their names.
    """

    vocab_size: int

    @property
    @abstractmethod
    def special_ids(self) -> Mapping[str, int]:
        """The id of each special token this vocabulary has; a saved one may have none."""

    @property
    def eos_id(self) -> int | None:
        """The id that ends a document, None when the vocabulary has no special tokens."""
        return self.special_ids.get(END_OF_TEXT)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of `text`, never a special one; `decode` gives the text back."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; U+FFFD where bytes are not UTF-8 (a model may stop inside a character)."""

    @abstractmethod
    def vocabulary(self) -> str:
        """The JSON that goes to ``tokenizer.json``."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text; faster than one by one where the implementation can."""
        return [self.encode(text) for text in texts]

    def save(self, directory: Path) -> None:
        """Writes what `load` reads; each file whole or not at all."""
        files.write_text(directory / VOCABULARY_FILE, self.vocabulary())
        kind = type(self).__module__.rpartition(".")[2]
        files.write_text(
            directory / KIND_FILE, json.dumps({"kind": kind, "vocab_size": self.vocab_size}) + "\n"
        )


def load(directory: str | Path, *, key: str = "tokenizer") -> Tokenizer:
    """The tokenizer that `save` wrote to `directory`, or that transformers' ``save_pretrained`` left there.

    Raises:
        ConfigError: for `key`, when the directory is not one of a tokenizer, or is damaged.
    """
    try:
        return _load(Path(directory).expanduser())
    except ConfigError as error:
        raise ConfigError(key, directory, error.mend) from error


def _load(directory: Path) -> Tokenizer:
    foreign = not (directory / KIND_FILE).exists() and (directory / "tokenizer_config.json").is_file()
    about = {"kind": "huggingface"} if foreign else read_json(directory / KIND_FILE)
    kind = about.get("kind", "")
    # The name comes from a file, so it may only pick a module of this room.
    if not (isinstance(kind, str) and re.fullmatch(r"[a-z][a-z0-9_]*", kind)):
        raise damaged(directory / KIND_FILE, "it names no kind of tokenizer")
    name = f"{__package__}.{kind}"
    reader = None
    if importlib.util.find_spec(name) is not None:
        reader = getattr(importlib.import_module(name), "read", None)
    if reader is None:
        raise damaged(directory / KIND_FILE, f"its kind of tokenizer, {kind!r}, is unknown to this version")
    tokenizer: Tokenizer = reader(directory)
    if not foreign and tokenizer.vocab_size != about.get("vocab_size"):
        raise damaged(
            directory / VOCABULARY_FILE,
            f"it holds {tokenizer.vocab_size} ids, {KIND_FILE} says {about.get('vocab_size')}",
        )
    return tokenizer


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; a ConfigError that says what is wrong with it."""
    try:
        content = files.read_json(file)
    except OSError as error:
        mend = f"not a tokenizer's directory: {file.name} cannot be read ({error.strerror})"
        raise ConfigError("tokenizer", file.parent, mend) from error
    except ValueError as error:
        raise damaged(file, f"not JSON, {error}") from error
    if not isinstance(content, dict):
        raise damaged(file, "not a JSON object")
    return content


def damaged(file: Path, what: str) -> ConfigError:
    """The error to raise for a tokenizer's file that is not what it was."""
    return ConfigError("tokenizer", file.parent, f"{file.name} is damaged: {what}; make the tokenizer again")


def encode_batch(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, by the tokenizer's own fast path when it has one."""
    fast = getattr(tokenizer, "encode_batch", None)
    return fast(texts) if fast is not None else [tokenizer.encode(text) for text in texts]


def same(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether each id stands for the same text in both, though they may be kept in different forms."""
    if one is other or _digests(one) == _digests(other):
        return True
    return (
        (one.vocab_size, one.eos_id) == (other.vocab_size, other.eos_id)
        and _probed(one) == _probed(other)
        and all(one.decode([index]) == other.decode([index]) for index in range(one.vocab_size))
    )


def _probed(tokenizer: Tokenizer) -> list[int] | None:
    try:
        return tokenizer.encode(PROBE)
    except ConfigError:  # it cannot write all of it
        return None


PROBE = "It's 12,345.67 of 89 — naïve café; 世界 🙂\n\tif x != y:  return [x, y]\n\n<|im_end|>"
"""Text on which two ways of cutting text into words would differ."""


def _digests(tokenizer: Tokenizer) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): files.sha256_file(path) for path in found}


def opening_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What its model was trained to find ahead of every text; most often nothing."""
    found: tuple[int, ...] = getattr(tokenizer, "opening_ids", ())
    return found


def special_ids(tokenizer: Tokenizer) -> Mapping[str, int]:
    """The tokenizer's special tokens and their ids; empty when it has none."""
    found: Mapping[str, int] = getattr(tokenizer, "special_ids", {})
    return found


def well_formed(text: str) -> str:
    """`text` with each lone surrogate (JSON can smuggle one in) replaced by U+FFFD, so UTF-8 can hold it."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def pieces(text: str, size: int = PIECE_CHARACTERS) -> Iterator[str]:
    """`text` in parts of about `size` characters that join to it again, cut after a line where possible.

    A tokenizer's memory grows with the longest single text, and several texts are encoded in parallel.
    """
    start = 0
    while start < len(text):
        end = start + size
        if end < len(text):
            newline = text.rfind("\n", start + size // 2, end)
            end = newline + 1 if newline >= 0 else end
        yield text[start:end]
        start = end
