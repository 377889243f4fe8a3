"""Removes lines or paragraphs that the corpus has already said, wherever that was.

Paragraphs: Wenzek et al. 2020, "CCNet", section 3.1 (first 64 bits of SHA-1 of the normalised paragraph,
digits as one, no least length); Soldaini et al. 2024, "Dolma", section on deduplication (a Bloom filter,
texts as they are). Lines: Penedo et al. 2024, "FineWeb", tried it over a whole crawl and found the models
trained on what was left to be worse than with near-duplicate removal alone: try it before you trust it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import polars as pl
from pydantic import Field

from llm.curation.base import Corpus
from llm.curation.hashing import partitions, repeats
from llm.curation.pieces import Grain, drop_pieces, survey_pieces, to_decisions


class LineDedup:
    """Keeps the first occurrence of each line; `score` is the share of the document's characters that went.

    Lines are compared as `ExactDedup` compares documents: by their words, here by 64 bits of BLAKE2b. Notes
    on the lines lie on disk and are decided upon part by part, so memory grows only by 12 bytes a line that
    goes.

    Args:
        min_chars: Lines with fewer characters (letters, digits and single spaces) stay, repeated or not.
        min_left: A document that keeps a smaller share of its characters, or nothing but space, is removed.
        mask_digits: Numbers do not count: every digit is 0 (CCNet).
        except_domains: Domains left alone, such as `code`, which repeats itself by nature.
    """

    grain: ClassVar[Grain] = "line"

    def __init__(
        self,
        *,
        min_chars: Annotated[int, Field(ge=0)] = 40,
        min_left: Annotated[float, Field(ge=0, le=1)] = 0.2,
        mask_digits: bool = False,
        except_domains: Sequence[str] = (),
    ) -> None:
        self.min_chars, self.min_left, self.mask_digits = min_chars, min_left, mask_digits
        self.except_domains = tuple(except_domains)

    def survey(self, documents: pl.DataFrame) -> pl.DataFrame:
        """The hash of each line that is long enough."""
        return survey_pieces(
            documents,
            self.grain,
            except_domains=self.except_domains,
            min_chars=self.min_chars,
            mask_digits=self.mask_digits,
        )

    def decide(self, corpus: Corpus) -> pl.DataFrame:
        """`piece`: numbers of the lines that go."""
        return to_decisions([notes.filter(repeats(notes["hash"])) for notes in partitions(corpus)])

    def apply(self, documents: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
        """`reason` is `duplicate_lines`, or `mostly_duplicate_lines` where the document goes."""
        reason = f"duplicate_{self.grain}s"
        return drop_pieces(documents, decisions, self.grain, reason=reason, min_left=self.min_left)


class ParagraphDedup(LineDedup):
    """Keeps the first occurrence of each paragraph, which is what stands between blank lines.

    Reasons are `duplicate_paragraphs` and `mostly_duplicate_paragraphs`; all else is as with lines.
    """

    grain: ClassVar[Grain] = "paragraph"
