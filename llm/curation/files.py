"""What the readers of files share: finding them, naming them, and which columns of them are read."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from llm.files import digest
from llm.types import ConfigError


def find(path: str, suffixes: Sequence[str]) -> list[Path]:
    """The files a path means: itself, those of a folder (any depth) by suffix, or those of a glob pattern.

    Raises:
        ConfigError: nothing is there, or it holds no such file. Key `path`.
    """
    here = Path(path).expanduser()
    if here.is_file():
        return [here]
    if here.is_dir():
        found = [
            one for one in sorted(here.rglob("*")) if one.is_file() and one.name.endswith(tuple(suffixes))
        ]
        if not found:
            raise ConfigError("path", path, f"the folder holds no {', '.join(suffixes)} file")
        return found
    # a pattern may be absolute, which Path.glob refuses
    found = sorted(Path(one) for one in glob.glob(str(here), recursive=True) if Path(one).is_file())  # noqa: PTH207
    if not found:
        mend = "no file matches the pattern" if glob.has_magic(path) else "no such file or folder"
        raise ConfigError("path", path, mend)
    return found


def fingerprint(paths: Sequence[Path], *settings: object) -> str:
    """A digest of names, sizes and times of change: reading gigabytes to find nothing new would be slow."""
    return digest([settings, [(p.resolve(), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]])


def label(path: Path, paths: Sequence[Path]) -> str:
    """A short name of a file, unique among `paths`: its place below their common folder."""
    if len(paths) == 1:
        return path.name
    parents = [one.parent for one in paths]
    common = parents[0]
    while any(not one.is_relative_to(common) for one in parents):
        common = common.parent
    return path.relative_to(common).as_posix()


class Columns:
    """The settings of a reader of files whose documents are rows.

    Args:
        path: File, folder or pattern.
        text: Column of the text.
        id: Column of the document's name; the file and the row's number when null.
        domain: Domain of the documents, unless `domain_column` names one.
        domain_column: Column of the domain.
    """

    suffixes: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        text: str = "text",
        id: str | None = None,
        domain: str = "text",
        domain_column: str | None = None,
    ) -> None:
        self.path, self.text, self.id, self.domain, self.domain_column = path, text, id, domain, domain_column
        self._paths = find(path, self.suffixes)

    def fingerprint(self) -> str:
        """Names, sizes and times of the files, and which columns are read."""
        return fingerprint(self._paths, self.text, self.id, self.domain, self.domain_column)
