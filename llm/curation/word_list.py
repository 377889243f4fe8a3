"""Removes documents with listed words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.inputs import read_text
from llm.types import ConfigError

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\x{30FC}]"
"""Scripts that put no spaces between words: a listed word counts wherever its characters stand."""


class WordList:
    """Removes a document when more than `max_share` of its words are listed.

    Raffel et al. 2020 ("T5", section 2.2) made C4 by removing every page with any word of a list (LDNOOBW):
    that is `max_share: 0`. Dodge et al. 2021, "Documenting Large Webtext Corpora", show what that costs:
    medical and legal texts, and texts by and about minorities. No list comes with this project.

    A word counts as a whole (`class` holds no `ass`), whatever its case and the punctuation around it, and
    may be a phrase. In scripts without spaces it counts anywhere; there, one word is all between two marks.

    Args:
        path: A text file of one word or phrase a line (`#` begins a comment), or a folder of such files named
            by language (`en.txt`, `de.txt`).
        languages: Which files of a folder; `[]` for all.
        by_language: Holds a document against the list of its own language, where a step before this one has
            added `language`; false holds all against all lists.
        max_share: Greatest share of words that may be listed.
        except_words: Words taken off the list.
        except_domains: Domains not judged, such as `code`.
    """

    def __init__(
        self,
        path: str,
        languages: Sequence[str] = (),
        by_language: bool = True,
        max_share: Annotated[float, Field(ge=0, le=1)] = 0.0,
        except_words: Sequence[str] = (),
        except_domains: Sequence[str] = (),
    ) -> None:
        self.path, self.languages, self.by_language = path, tuple(languages), by_language
        self.max_share, self.except_domains = max_share, tuple(except_domains)
        self.except_words = tuple(except_words)

    def prepare(self, say: Callable[[str], object]) -> None:
        """Reads the lists; they go along to other processes.

        Raises:
            ConfigError: there is no list, or none of a chosen language. Key `path` or `languages`.
        """
        counts = ", ".join(f"{name or 'all'} {len(words):,}" for name, words in self.lists.items())
        say(f"listed words: {counts}")

    def fingerprint(self) -> str:
        """A digest of the lists as they are used."""
        content = "\n".join(f"{name}:{word}" for name, words in self.lists.items() for word in words)
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def lists(self) -> dict[str, list[str]]:
        """Normalised words by language; by "" when `path` is one file."""
        place = Path(self.path).expanduser()
        files = {"": place}
        if place.is_dir():
            files = {file.name.removesuffix(".txt"): file for file in sorted(place.glob("*.txt"))}
            for language in self.languages:
                if language not in files:
                    mend = f"no {language}.txt in {self.path}; there are {', '.join(files) or 'none'}"
                    raise ConfigError("languages", language, mend)
            files = {name: file for name, file in files.items() if name in (self.languages or files)}
            if not files:
                raise ConfigError("path", self.path, "no LANGUAGE.txt in this folder")
        found = {name: self._read(file) for name, file in files.items()}
        if not any(found.values()):
            raise ConfigError("path", self.path, "lists no word")
        return found

    def _read(self, file: Path) -> list[str]:
        lines = [line.strip() for line in read_text(file, key="path").splitlines()]
        words = pl.Series([line for line in lines if line and not line.startswith("#")], dtype=pl.String)
        taken_off = set(_spaced(pl.Series(self.except_words, dtype=pl.String)))
        return sorted({word for word in _spaced(words) if word.strip() and word not in taken_off})

    def annotate(self, documents: pl.LazyFrame) -> pl.LazyFrame:
        """`score` is the share of words that are listed, 0 to 1; null where no list applies."""
        frame = documents.collect()
        own = self.by_language and "" not in self.lists and "language" in frame.columns
        parts = []
        numbered = frame.with_row_index("_row").select("_row", "text", *(["language"] if own else []))
        if own:
            for name, words in self.lists.items():
                part = numbered.filter(pl.col("language") == name)
                parts.append(part.select("_row", _listed_share(part["text"], words).alias("score")))
        else:
            words = sorted({word for words in self.lists.values() for word in words})
            parts.append(numbered.select("_row", _listed_share(frame["text"], words).alias("score")))
        scores = pl.concat(parts).sort("_row")
        removed = (
            (pl.col("score") > self.max_share) & ~pl.col("domain").is_in(list(self.except_domains))
        ).fill_null(value=False)
        return (
            frame.with_row_index("_row")
            .join(scores, on="_row", how="left", maintain_order="left")
            .lazy()
            .with_columns(
                (~removed).alias("keep"),
                pl.when(removed).then(pl.lit("listed_words")).alias("reason"),
                pl.lit(None, pl.String).alias("match"),
            )
            .drop("_row")
        )


def _spaced(texts: pl.Series) -> pl.Series:
    """Words in lower case with one space before and after each, so that a search finds whole words only.

    A run of a script without spaces is one such word, in which anything may be found.
    """
    words = texts.str.to_lowercase().str.replace_all(r"[^\p{L}\p{M}\p{N}]+", " ")
    # looking is cheap, replacing is not, and most texts have no such script
    unspaced = words.str.contains(_UNSPACED)
    if unspaced.any():
        apart = words.str.replace_all(rf"({_UNSPACED}+)", " $1 ").str.replace_all(" +", " ")
        words = apart.zip_with(unspaced, words)
    return " " + words.str.strip_chars() + " "


def _patterns(words: Sequence[str]) -> list[str]:
    """What to look for: words with the spaces around them, but for ends in a script without spaces."""
    found = pl.Series(list(words), dtype=pl.String)
    return found.str.replace(rf"^ ({_UNSPACED})", "$1").str.replace(rf"({_UNSPACED}) $", "$1").to_list()


def _listed_share(texts: pl.Series, words: Sequence[str]) -> pl.Series:
    """Share of words that are listed; each end of a phrase counts, and overlapping ones count each."""
    spaced = _spaced(texts)
    patterns = _patterns(words)
    if not patterns or not len(spaced):
        return pl.Series("score", [0.0] * len(spaced), dtype=pl.Float64)
    hit = spaced.str.contains_any(patterns)
    frame = pl.DataFrame({"spaced": spaced, "hit": hit}).with_row_index("row")
    found = frame.filter("hit").select(
        "row",
        listed=pl.col("spaced")
        .str.extract_many(patterns, overlapping=True)
        .list.eval(pl.element().str.count_matches(r"\S+").clip(lower_bound=1))
        .list.sum(),
        total=pl.col("spaced").str.count_matches(r"\S+"),
    )
    share = (pl.col("listed") / pl.col("total")).clip(upper_bound=1.0).fill_null(0.0)
    joined = frame.join(found, on="row", how="left", maintain_order="left")
    return joined.select(share.alias("score"))["score"]
