"""Attributes of texts, measured once: a threshold that changes, or a run that is repeated, finds them again.

They are a function of the text and of what `Tagger.tag_key` names, so that is what they are kept under: a
folder for each key, in it a file for each shard, in that a row for each text by its hash. What a filter
before lets through today and did not yesterday is measured, and nothing else.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl

from llm import files
from llm.curation.base import Tagger


def text_hashes(texts: pl.Series) -> pl.Series:
    """128 bits a text (BLAKE2b of its UTF-8 bytes), the same on every machine."""
    hashes = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
    return pl.Series("_text_hash", hashes, pl.Binary)


class AttributeStore:
    """A folder of measured attributes.

    Args:
        root: The folder; made when first written to. Nothing is kept when None.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root

    def tagged(self, step: Tagger, documents: pl.DataFrame, shard: str) -> tuple[pl.DataFrame, int]:
        """The documents with the step's attributes, and how many texts had to be measured.

        Args:
            step: Whose attributes; columns of these names that documents have already are replaced.
            documents: One shard.
            shard: Its name, the same for the same shard in every run.
        """
        documents = documents.drop(step.attributes, strict=False)
        if self.root is None or not documents.height:
            return documents.hstack(step.tag(documents["text"])), documents.height
        kind = f"{type(step).__module__}.{type(step).__qualname__}"
        path = self.root / files.digest([kind, step.tag_key()])[:20] / f"{shard}.parquet"
        hashes = text_hashes(documents["text"])
        known = self._known(path, step)
        missing = documents.select("text").with_columns(hashes)
        missing = missing.unique("_text_hash", maintain_order=True)
        missing = missing.join(known, on="_text_hash", how="anti", maintain_order="left")
        if missing.height:
            measured = missing.select("_text_hash").hstack(step.tag(missing["text"]))
            known = pl.concat([known, measured]).sort("_text_hash")
            with files.replacing(path) as temporary:
                known.write_parquet(temporary, compression="zstd", statistics=False)
        found = hashes.to_frame().join(known, on="_text_hash", how="left", maintain_order="left")
        return documents.hstack(found.select(step.attributes.keys())), missing.height

    def _known(self, path: Path, step: Tagger) -> pl.DataFrame:
        schema = {"_text_hash": pl.Binary, **step.attributes}
        try:
            frame = pl.read_parquet(path, glob=False)
        except (OSError, pl.exceptions.PolarsError):
            return pl.DataFrame(schema=schema)
        # another version's columns, or a torn file: measured anew
        return frame if dict(frame.schema) == schema else pl.DataFrame(schema=schema)
