"""Removes what many documents say alike: navigation, cookie banners, headers and footers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import polars as pl
from pydantic import Field

from llm.curation.base import Corpus
from llm.curation.hashing import partitions
from llm.curation.pieces import drop_pieces, survey_pieces, to_decisions


class Boilerplate:
    """Drops every copy of a line that stands in many documents, the first one included.

    No list of words and no language: a line is boilerplate because it is repeated across documents (its
    repetitions within one do not count). Both bounds below must be reached. Short lines are judged too, for
    menus consist of them; so headings that a kind of document always has go as well (`Parameters` in
    reference pages), and `except_domains` or a larger `min_share` saves them.

    Args:
        min_documents: Documents that must hold the line.
        min_share: Share of the source's documents that must hold it.
        per_source: Counts within each of the curation's sources, however many files it has; false counts over
            the whole corpus.
        min_chars: Shorter lines stay (characters of the normal form, see `ExactDedup`).
        min_left: A document that keeps a smaller share of its characters is removed.
        mask_digits: Numbers do not count: `Page 3` is `Page 7`.
        except_domains: Domains left alone.
    """

    def __init__(
        self,
        *,
        min_documents: Annotated[int, Field(ge=2)] = 20,
        min_share: Annotated[float, Field(ge=0, le=1)] = 0.0,
        per_source: bool = True,
        min_chars: Annotated[int, Field(ge=0)] = 1,
        min_left: Annotated[float, Field(ge=0, le=1)] = 0.2,
        mask_digits: bool = True,
        except_domains: Sequence[str] = (),
    ) -> None:
        self.min_documents, self.min_share, self.per_source = min_documents, min_share, per_source
        self.min_chars, self.min_left, self.mask_digits = min_chars, min_left, mask_digits
        self.except_domains = tuple(except_domains)

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """The hash of each line."""
        return survey_pieces(
            documents,
            "line",
            except_domains=self.except_domains,
            min_chars=self.min_chars,
            mask_digits=self.mask_digits,
        )

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """`piece`: numbers of the lines that go."""
        origins = corpus.sources if self.per_source else [0] * len(corpus.shards)
        origin = pl.Series("origin", origins, pl.UInt32)
        bounds = self._bounds(corpus, origin)
        line, found = ["origin", "hash"], []
        for notes in partitions(corpus):
            # only what is repeated at all is worth counting
            repeated = notes.filter(pl.col("hash").is_duplicated())
            repeated = repeated.with_columns(origin.gather(repeated["shard"]))
            holders = repeated.unique([*line, "shard", "row"]).group_by(line).len()
            many = holders.join(bounds, on="origin").filter(pl.col("len") >= pl.col("bound"))
            found.append(repeated.join(many, on=line, how="semi"))
        return to_decisions(found)

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """`reason` is `boilerplate`, or `mostly_boilerplate` where the document goes."""
        return drop_pieces(documents, decisions, "line", reason="boilerplate", min_left=self.min_left)

    def _bounds(self, corpus: Corpus, origin: pl.Series) -> pl.DataFrame:
        """For each source, in how many documents a line must stand; documents without a line do not count."""
        sizes = [
            pl.scan_parquet(path, glob=False).select(pl.col("row").n_unique()).collect().item()
            for path in corpus.surveys
        ]
        # a share such as 0.1 is a little more in binary, which must not ask for one document more
        share = (pl.col("size").sum() * self.min_share - 1e-9).ceil()
        bound = pl.max_horizontal(share, pl.lit(self.min_documents)).alias("bound")
        return pl.DataFrame([origin, pl.Series("size", sizes, pl.UInt64)]).group_by("origin").agg(bound)
