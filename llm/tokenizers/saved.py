"""A tokenizer that exists already: a config can name a directory instead of training one."""

from __future__ import annotations

from collections.abc import Iterable

from llm.tokenizers.base import load
from llm.types import Tokenizer


def reuse(texts: Iterable[str], *, directory: str) -> Tokenizer:  # noqa: ARG001  (a tokenizer config's shape)
    """The tokenizer saved in `directory`; `texts` are not read."""
    return load(directory, key="directory")
