"""Repairs text that was decoded wrongly, and writes what looks the same in the same way."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import polars as pl

from llm.types import ConfigError

LINE_BREAKS = r"\r\n?|[\x0b\x0c\x{85}\x{2028}\x{2029}]"

# What stays whatever is removed: the flags of England, Scotland and Wales, which are spelt in tags, and the
# zero-width space of scripts that do not write spaces, where it shows the end of a word.
_NEEDED = (
    r"\x{1F3F4}[\x{E0020}-\x{E007F}]+"
    r"|[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Tham}\p{Tibetan}]\x{200B}+"
)
INVISIBLE = (
    rf"({_NEEDED})"
    r"|[\x00-\x08\x0E-\x1F\x7F-\x{9F}\x{AD}\x{200B}\x{2060}-\x{2064}\x{206A}-\x{206F}"
    r"\x{FDD0}-\x{FDEF}\x{FEFF}\x{FFF9}-\x{FFFC}\x{FFFE}\x{FFFF}\x{E0000}-\x{E007F}]"
)
"""Control characters, soft hyphens, byte order marks, zero-width spaces, tags and the like. Not among them
are joiners (ZWJ, ZWNJ), variation selectors and marks of direction, which scripts and emoji need."""


class Unicode:
    """Repairs `text`; an altered document gets the reason `unicode_repaired`, and none is removed.

    In this order: mojibake is undone line by line, line breaks become `\\n`, invisible characters go, what is
    left is normalised, and spaces at the ends of lines go. A text that needs nothing is only looked at.

    Args:
        mojibake: Undoes wrong decodings (`donâ€™t`) with ftfy (Speer 2019) where its heuristic sees one.
        form: Unicode normalisation (Unicode Standard Annex 15). NFC keeps the meaning of every character,
            NFKC also makes ligatures, full-width letters and superscripts plain.
        invisible: Removes control and zero-width characters no script needs.
        trailing_spaces: Removes spaces at the ends of lines.
    """

    def __init__(
        self,
        mojibake: bool = True,
        form: Literal["NFC", "NFKC", "none"] = "NFC",
        invisible: bool = True,
        trailing_spaces: bool = True,
    ) -> None:
        self.mojibake, self.form = mojibake, form
        self.invisible, self.trailing_spaces = invisible, trailing_spaces

    def prepare(self, say: Callable[[str], object]) -> None:
        """Looks for ftfy.

        Raises:
            ConfigError: it is not installed. Key: mojibake.
        """
        del say
        if self.mojibake:
            _ftfy()

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """Keeps every document."""
        frame = documents.collect()
        repaired = self.repair(frame["text"])
        altered = repaired != frame["text"]
        return frame.lazy().with_columns(
            repaired.alias("text"),
            pl.lit(True).alias("keep"),
            pl.when(altered).then(pl.lit("unicode_repaired")).alias("reason"),
            pl.lit(None, pl.Float64).alias("score"),
            pl.lit(None, pl.String).alias("match"),
        )

    def repair(self, texts: pl.Series) -> pl.Series:
        """The texts, repaired."""
        if self.mojibake:
            texts = _replaced(texts, _looks_wrong(texts), _decoded)
        texts = texts.str.replace_all(LINE_BREAKS, "\n")
        if self.invisible:
            texts = texts.str.replace_all(INVISIBLE, "${1}")
        if self.form != "none":
            texts = _replaced(texts, texts.str.contains(r"[^\x00-\x7F]"), self._normalised)
        if self.trailing_spaces:
            texts = texts.str.replace_all(r"(?m)[^\S\n]+$", "")
        return texts

    def _normalised(self, text: str) -> str:
        # asking first is ten times faster than normalising what is normal
        assert self.form != "none"
        return text if unicodedata.is_normalized(self.form, text) else unicodedata.normalize(self.form, text)


def _replaced(texts: pl.Series, which: pl.Series, function: Callable[[str], str]) -> pl.Series:
    """The texts with those that `which` marks put through a function."""
    rows = which.arg_true()
    if rows.is_empty():
        return texts
    new = [function(text) for text in texts.gather(rows)]
    return texts.clone().scatter(rows, new)


def _decoded(text: str) -> str:
    """Each line by itself: one that was decoded wrongly often stands between others that were not."""
    ftfy = _ftfy()
    return "\n".join(
        ftfy.fix_encoding(line) if ftfy.badness.is_bad(line) else line for line in text.split("\n")
    )


def _looks_wrong(texts: pl.Series) -> pl.Series:
    """Where ftfy's heuristic sees mojibake; its pattern runs a hundred times faster in polars."""
    try:
        return texts.str.contains(_bare(_ftfy().badness.BADNESS_RE.pattern))
    except pl.exceptions.ComputeError:  # a pattern of another version, in a dialect that polars does not read
        return texts.str.contains(r"[^\x00-\x7F]")


@lru_cache(maxsize=1)
def _bare(pattern: str) -> str:
    """A verbose pattern of Python's without its comments and spaces; spaces in brackets count."""
    kept, inside, comment, place = [], False, False, 0
    while place < len(pattern):
        character = pattern[place]
        if comment:
            comment = character != "\n"
        elif character == "\\":
            kept.append(pattern[place : place + 2])
            place += 1
        elif inside or not (character.isspace() or character == "#"):
            inside = character != "]" if inside else character == "["
            kept.append(character)
        else:
            comment = character == "#"
        place += 1
    return "".join(kept)


def _ftfy() -> Any:
    try:
        import ftfy
        import ftfy.badness
    except ImportError:
        mend = "needs the package ftfy: pip install ftfy; mojibake=false does without"
        raise ConfigError("mojibake", True, mend) from None
    return ftfy
