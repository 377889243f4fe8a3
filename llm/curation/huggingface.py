"""Reader of Hugging Face datasets, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from llm.curation import files
from llm.curation.characters import clean
from llm.curation.documents import Document, Streamed, batched, excerpt, require
from llm.files import canonical, digest
from llm.types import ConfigError

BUILDERS = frozenset({"arrow", "csv", "json", "pandas", "parquet", "text", "webdataset", "xml"})
"""Names that mean no dataset but how `data_files` are read."""


class HuggingFaceDataset(Streamed):
    """A dataset of the Hugging Face Hub or of local files, read through `datasets` without storing it.

    Each of the dataset's own shards (mostly its files) is a part. A network that fails ends the reading; rows
    that are not sound are set aside.

    Args:
        dataset: ``org/name`` on the Hub, a local folder, or a builder (`json`, `parquet`, `csv`, `text`) with
            `data_files`.
        config: The dataset's configuration, where it has several.
        split: Which split, as `datasets` writes it.
        revision: Commit or tag on the Hub. Needed for a dataset of the Hub, so that every run reads the same.
        data_files: File, pattern or list of them.
        text: Column of the text.
        id: Column of the document's name; the dataset's name, shard and row where it is null.
        domain: As in `llm.curation.files.Columns`; so are the other columns.
        domain_column: As there.
        licence: As there.
        licence_column: As there.
        provenance_column: As there.
        max_document_bytes: Larger texts are set aside.

    Raises:
        ConfigError: `datasets` is not installed; no `revision` for a dataset of the Hub. When read: there is
            no such dataset, split or column.
    """

    def __init__(
        self,
        dataset: str,
        config: str | None = None,
        split: str = "train",
        *,
        revision: str | None = None,
        data_files: str | Sequence[str] | None = None,
        text: str = "text",
        id: str | None = None,
        domain: str = "text",
        domain_column: str | None = None,
        licence: str | None = None,
        licence_column: str | None = None,
        provenance_column: str | None = None,
        max_document_bytes: Annotated[int, Field(gt=0)] = 20_000_000,
    ) -> None:
        self.check_arguments(dataset, revision, data_files)
        require("datasets", "hf", "dataset", dataset)
        self.dataset, self.config, self.split, self.revision = dataset, config, split, revision
        self.data_files = [data_files] if isinstance(data_files, str) else list(data_files or ())
        self.text, self.id, self.domain, self.domain_column = text, id, domain, domain_column
        self.licence, self.licence_column, self.provenance_column = licence, licence_column, provenance_column
        self.max_document_bytes = max_document_bytes
        wanted = {key: getattr(self, key) for key in files.FIELDS}
        self._wanted = {"text": text, **{key: column for key, column in wanted.items() if column is not None}}
        self._loaded: Any = None

    @staticmethod
    def check_arguments(
        dataset: str, revision: str | None = None, data_files: str | Sequence[str] | None = None
    ) -> None:
        """A dataset of the Hub is pinned.

        Raises:
            ConfigError: it is not. Key `revision`.
        """
        builder = data_files is not None and dataset in BUILDERS
        if revision is None and not builder and not Path(dataset).expanduser().exists():
            mend = f"{dataset} is no local folder, and on the Hub it can change: give a commit"
            raise ConfigError("revision", None, mend)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loaded": None}

    def parts(self) -> Sequence[str]:
        """The dataset's shards.

        Raises:
            ConfigError: there is no such dataset, or none of its first rows has a column.
        """
        features = self._stream().features
        files.check_columns(self._wanted, iter([list(features)]) if features else self._first_rows())
        return [f"{self.split}-{index:05}" for index in range(self._stream().num_shards)]

    def _first_rows(self) -> Iterator[list[str]]:
        import datasets

        try:
            yield from (list(row) for row, _ in zip(self._stream(), range(100), strict=False))
        except (datasets.exceptions.DatasetsError, ValueError):
            return  # the ledger is told when they are read

    def read(self, part: str) -> Iterator[pl.DataFrame]:
        """Frames of documents and of rows that are none."""
        yield from batched(self._documents(part))

    def fingerprint(self) -> str:
        """All settings, and names, sizes and times of local files; what is on the Hub has its `revision`.

        Raises:
            ConfigError: a local file is not there. Key `data_files`.
        """
        settings = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        here = Path(self.dataset).expanduser()
        local = sorted(one for one in here.rglob("*") if one.is_file()) if here.is_dir() else []
        on_hub = not here.is_dir() and self.dataset not in BUILDERS
        for pattern in self.data_files:
            if on_hub or "://" in pattern:
                continue
            try:
                local += files.find(str(here / pattern) if here.is_dir() else pattern, ("",))
            except ConfigError as mistake:
                raise ConfigError("data_files", pattern, mistake.mend) from mistake
        return digest([settings, files.fingerprint(local)])

    def _stream(self) -> Any:
        if self._loaded is None:
            import datasets

            options = {"data_files": self.data_files} if self.data_files else {}
            name = (
                str(Path(self.dataset).expanduser())
                if Path(self.dataset).expanduser().is_dir()
                else self.dataset
            )
            try:
                self._loaded = datasets.load_dataset(
                    name, self.config, split=self.split, revision=self.revision, streaming=True, **options
                )
            except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise ConfigError("dataset", self.dataset, f"cannot be opened: {reason}") from error
        return self._loaded

    def _documents(self, part: str) -> Iterator[Document]:
        import datasets

        stream, index = self._stream(), int(part.rpartition("-")[2])
        shard = stream.shard(num_shards=stream.num_shards, index=index)
        number = -1
        try:
            for number, row in enumerate(shard):
                yield self._document(f"{self.dataset}/{part}:{number}", row)
        except (datasets.exceptions.DatasetsError, ValueError, UnicodeError) as error:
            # what a file holds; what the network does not give is an OSError and ends the run
            name = f"{self.dataset}/{part}"
            about = excerpt(str(error))
            yield Document(
                f"{name}#corrupt", about, self.dataset, self.domain, self.licence, f"{name}:{number + 1}",
                keep=False, reason="corrupt",
            )  # fmt: skip

    def _document(self, place: str, row: Mapping[str, Any]) -> Document:
        text = row.get(self.text)
        reason: str | None = "no_text"
        size = 0
        if isinstance(text, str):
            size = len(text.encode("utf-8", "replace"))
            reason = "too_large" if size > self.max_document_bytes else None
        if reason is not None:
            about = excerpt(text if isinstance(text, str) else canonical(row))
            score = float(size) if size else None
            return Document(
                place,
                about,
                self.dataset,
                self.domain,
                self.licence,
                place,
                keep=False,
                reason=reason,
                score=score,
            )
        assert isinstance(text, str)
        text, reason = clean(text)
        told: dict[str, Any] = files.own_fields(row, files.fields_of(self._wanted))
        made = Document(place, text, self.dataset, self.domain, self.licence, place, reason=reason)
        return made._replace(**told)
