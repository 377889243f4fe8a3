"""Documents taken apart into lines or paragraphs, and put together again without some of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import polars as pl

from llm.curation.hashing import digests, normal_forms

Grain = Literal["line", "paragraph"]

_BREAKS = {"line": re.compile(r"\n"), "paragraph": re.compile(r"\n(?:[^\S\n]*\n)+")}


def pieces(text: str, grain: Grain) -> list[str]:
    """The lines or paragraphs of a text, each with the line breaks behind it; joined they are the text.

    Paragraphs are parted by blank lines. A line ends at a line feed, so CRLF stays with its line.
    """
    ends = [found.end() for found in _BREAKS[grain].finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def survey_pieces(
    documents: pl.DataFrame,
    grain: Grain,
    *,
    except_domains: Collection[str],
    min_chars: int,
    mask_digits: bool = False,
) -> pl.DataFrame:
    """`row`, `piece` (its number within the document) and `hash` of the pieces that may repeat others.

    Args:
        documents: One shard.
        grain: What a piece is.
        except_domains: Domains left alone.
        min_chars: Pieces with fewer characters in their normal form are left alone, empty ones always.
        mask_digits: All digits are one.
    """
    rows: list[int] = []
    numbers: list[int] = []
    texts: list[str] = []
    for row, (text, domain) in enumerate(documents.select("text", "domain").iter_rows()):
        if domain in except_domains:
            continue
        parts = pieces(text, grain)
        rows += [row] * len(parts)
        numbers += range(len(parts))
        texts += [part.strip() for part in parts]
    frame = pl.DataFrame({"row": rows, "piece": numbers}, schema=dict.fromkeys(["row", "piece"], pl.UInt32))
    forms = list(normal_forms(pl.Series(texts, dtype=pl.String), mask_digits=mask_digits))
    long = [_n_chars(form) >= max(1, min_chars) for form in forms]
    kept = digests(form for form, enough in zip(forms, long, strict=True) if enough)
    return frame.filter(pl.Series(long, dtype=pl.Boolean)).hstack(kept)


def without(text: str, grain: Grain, dropped: Collection[int]) -> str:
    """The text without the pieces of these numbers; line breaks that led to a dropped end go with it."""
    parts = pieces(text, grain)
    left = "".join(part for number, part in enumerate(parts) if number not in dropped)
    return left.rstrip("\r\n") if len(parts) - 1 in dropped else left


def drop_pieces(
    documents: pl.DataFrame, decisions: pl.DataFrame, grain: Grain, *, reason: str, min_left: float
) -> pl.DataFrame:
    """The verdict on a shard of which the pieces in `decisions` (`row`, `piece`) are dropped."""
    dropped: dict[int, set[int]] = {}
    for row, piece in decisions.select("row", "piece").iter_rows():
        dropped.setdefault(row, set()).add(piece)
    texts = documents["text"]
    changed = {row: without(texts[row], grain, numbers) for row, numbers in dropped.items()}
    return with_texts(documents, changed, reason=reason, min_left=min_left)


def with_texts(
    documents: pl.DataFrame, changed: Mapping[int, str], *, reason: str, min_left: float
) -> pl.DataFrame:
    """The verdict on documents whose texts were cut: `score` is the share of characters taken away.

    Args:
        documents: One shard.
        changed: What is left of a row's text.
        reason: Why, for a document that stays. One that goes, because a smaller share than `min_left` or
            nothing but space is left, has `mostly_` before it and keeps its text for the ledger.
        min_left: Share of the characters.
    """
    texts: list[str] = documents["text"].to_list()
    keep = [True] * len(texts)
    reasons: list[str | None] = [None] * len(texts)
    scores: list[float | None] = [None] * len(texts)
    for row, left in changed.items():
        share = len(left) / len(texts[row])
        scores[row] = 1 - share
        keep[row] = share >= min_left and bool(left.strip())
        reasons[row] = reason if keep[row] else f"mostly_{reason}"
        texts[row] = left if keep[row] else texts[row]
    return documents.with_columns(
        pl.Series("text", texts, pl.String),
        pl.Series("keep", keep, pl.Boolean),
        pl.Series("reason", reasons, pl.String),
        pl.Series("score", scores, pl.Float64),
        pl.lit(None, pl.String).alias("match"),
    )


def to_decisions(found: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """What `decide` returns: pieces to drop, from all parts of the hash space."""
    columns = ["shard", "row", "piece"]
    empty = pl.DataFrame(schema=dict.fromkeys(columns, pl.UInt32))
    return pl.concat([empty, *(part.select(columns) for part in found)]).sort(columns)


def _n_chars(form: bytes) -> int:
    return len(form) if form.isascii() else len(form.decode())
