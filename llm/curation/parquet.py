"""Reader of parquet files."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from llm.curation import files
from llm.types import ConfigError


class Parquet(files.Columns):
    """Parquet files: a file, a folder or a glob pattern, read by polars.

    Arguments as in `llm.curation.files.Columns`.

    Raises:
        ConfigError: nothing there; not a whole parquet file; a missing column, or one that is not text.
    """

    suffixes = (".parquet",)

    def documents(self) -> pl.LazyFrame:
        """Rows id, text, source, domain; rows without a text are left out."""
        frames = [self._one(path) for path in self._paths]
        return pl.concat(frames)

    def _one(self, path: Path) -> pl.LazyFrame:
        if path.stat().st_size == 0:
            raise ConfigError("path", path, "is empty")
        wanted = {"text": self.text, "id": self.id, "domain_column": self.domain_column}
        columns = {key: column for key, column in wanted.items() if column is not None}
        try:
            # reading here, and only these columns: a torn page shows itself now and not in a later step
            schema = pl.read_parquet_schema(path)
            known = {column: schema[column] for column in columns.values() if column in schema}
            frame = pl.read_parquet(path, columns=list(known), use_pyarrow=False) if known else pl.DataFrame()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ConfigError("path", path, f"is not a whole parquet file ({_first_line(error)})") from None
        for key, column in columns.items():
            if column not in known:
                raise ConfigError(key, column, f"no such column in {path}; it has {', '.join(schema)}")
        if known[self.text] != pl.String:
            raise ConfigError("text", self.text, f"is not a column of text in {path} but {known[self.text]}")
        name = files.label(path, self._paths)
        numbered = frame.with_row_index("row").filter(pl.col(self.text).is_not_null())
        named = (
            pl.col(self.id).cast(pl.String) if self.id else pl.concat_str(pl.lit(name + ":"), pl.col("row"))
        )
        domain = pl.col(self.domain_column).cast(pl.String) if self.domain_column else pl.lit(self.domain)
        return numbered.lazy().select(
            named.alias("id"),
            pl.col(self.text).alias("text"),
            pl.lit(path.name).alias("source"),
            domain.alias("domain"),
        )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
