"""How text is written before a classifier sees it, the same in training and in use."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.classifiers.lines import LABEL_PREFIX

_MESSAGE_MARKS = r"https?://\S+|www\.\S+|@\w+|\bRT\b"


@dataclass(frozen=True)
class Normalisation:
    """A text as one line of words.

    Args:
        lower: Lower case, so that a shout and the start of a sentence are the words they are elsewhere.
        split_punctuation: Marks stand alone, so that `word.` and `word` are one word. Off, words are what
            lies between spaces, as in DCLM's classifier (Li et al. 2024).
        messages: Removes what tells a message in a network from other prose and not what it says: addresses
            of pages, @names and `RT`; HTML entities become their characters.
        max_chars: How much of a text is read, from its beginning; null for all.
    """

    lower: bool = True
    split_punctuation: bool = True
    messages: bool = False
    max_chars: Annotated[int, Field(ge=1)] | None = None

    def __call__(self, texts: pl.Series) -> pl.Series:
        """A line for each text, empty for a blank one."""
        if self.max_chars is not None:
            texts = texts.str.head(self.max_chars)
        if self.messages:
            unescaped = [html.unescape(text) if "&" in text else text for text in texts]
            texts = pl.Series(unescaped, dtype=pl.String).str.replace_all(_MESSAGE_MARKS, " ")
        if self.lower:
            texts = texts.str.to_lowercase()
        # a word `</s>` ends what fastText reads, and `__label__...` is a label to it, in small letters only
        texts = texts.str.replace_all("</s>", " ", literal=True).str.replace_all(
            LABEL_PREFIX, " ", literal=True
        )
        texts = texts.str.replace_all("\u2019", "'", literal=True)
        if self.split_punctuation:
            texts = texts.str.replace_all(r"([^\p{L}\p{M}\p{N}\s'])", " $1 ")
        return texts.str.replace_all(r"\s+", " ").str.strip_chars()
