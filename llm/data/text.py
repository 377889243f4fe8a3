"""One text file as training data: its last part is for validation, as in nanoGPT.

nanoGPT (``data/shakespeare_char/prepare.py``) takes the first ``int(n * 0.9)`` characters for training, the
rest for validation, and the characters of the whole text as the vocabulary. Here too; a byte-level BPE needs
no such help and is trained on the training part alone (see `llm.tokenizers.base.Corpus`).

The text is tokenised in memory when it is loaded, which suits files up to some hundred megabytes; for more,
task=tokenize writes packed tokens once and `llm.data.packed` maps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from llm import runtime
from llm.data.boundaries import AfterBlankLine
from llm.data.packed import PackedTokens, require_a_window
from llm.data.packing import tokens_of
from llm.files import cache_directory
from llm.inputs import digest, read_text
from llm.runs.download import fetch
from llm.runs.progress import Display, Progress
from llm.tokenizers.base import Corpus
from llm.types import ConfigError, Splits, Tokenizer


class TextData:
    """A UTF-8 text file, plain or ``.gz``. A `data` component.

    Args:
        path: the file; when given, `url` is not looked at.
        url: where to download it from, once, into ``$XDG_CACHE_HOME/llm-experiments``.
        sha256: of the file at `url`, 64 hexadecimal digits.
        validation_fraction: how much of the end, in characters, is for validation.
        seq_len: tokens in a training sequence.
        document_mask: whether blank lines part the text into documents whose tokens see those of their own
            document only, and count places from its first.
    """

    def __init__(
        self,
        seq_len: Annotated[int, Field(ge=1)],
        path: str | None = None,
        url: str | None = None,
        sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None,
        validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        document_mask: bool = False,
    ) -> None:
        self.check_arguments(path=path, url=url, sha256=sha256)
        self.path, self.url, self.sha256 = path, url, sha256
        self.validation_fraction, self.seq_len = validation_fraction, seq_len
        self.document_mask = document_mask

    @staticmethod
    def check_arguments(
        *, path: str | None = None, url: str | None = None, sha256: str | None = None
    ) -> None:
        """Either `path`, or `url` with `sha256`."""
        if path is None and url is None:
            raise ConfigError("path", None, "give a text file, as data.path=FILE")
        if path is None and sha256 is None:
            raise ConfigError("sha256", None, "a download needs it, so that every run has the same text")

    def load(self, make_tokenizer: Callable[[Iterable[str]], Tokenizer], cache: Path) -> Splits:  # noqa: ARG002
        """Reads (and first downloads) the text and tokenises both parts.

        Raises:
            ConfigError: when the file is missing, empty or not text, or too short for two parts.
        """
        text = self._read()
        edge = int(len(text) * (1 - self.validation_fraction))
        parts = text[:edge], text[edge:]
        for name, part in zip(("training", "validation"), parts, strict=True):
            if len(part) < 2:
                mend = f"leaves {len(part)} of {len(text)} characters for {name}; at least 2 are needed"
                raise ConfigError("validation_fraction", self.validation_fraction, mend)
        tokenizer = make_tokenizer(Corpus(sample=parts[:1], everything=parts))
        display = Display(quiet=not runtime.is_main())
        with Progress(display, "tokenize", len(text), "characters") as progress:
            train, validation = (self._windows(part, tokenizer, progress) for part in parts)
        require_a_window(train)
        return Splits(train, validation, tokenizer)

    def _windows(self, part: str, tokenizer: Tokenizer, progress: Progress) -> PackedTokens:
        tokens = tokens_of(part, tokenizer, progress.advance)
        if len(tokens) < 2:
            mend = f"one of its parts is a single token ({part[:20]!r}); give a longer text"
            raise ConfigError("path" if self.path else "url", self.path or self.url, mend)
        ends = AfterBlankLine(tokenizer) if self.document_mask else None
        return PackedTokens(tokens, self.seq_len, n_bytes=len(part.encode()), ends=ends)

    def _read(self) -> str:
        if self.path is not None:
            return read_text(self.path, key="path")
        assert self.url is not None
        assert self.sha256 is not None
        return read_text(fetch(self.url, self.sha256, cache_directory()), key="url")

    def fingerprint(self) -> str:
        """The sha256 of the file; known without downloading it."""
        if self.path is not None:
            return digest([self.path], key="path")
        assert self.sha256 is not None
        return self.sha256
