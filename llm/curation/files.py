"""Files a reader is pointed at: found, opened, and every way they can be wrong said in one line."""

from __future__ import annotations

import glob
import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

from llm.curation.base import digest
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


def read_text(path: Path) -> str:
    """Text of a file, unpacked when its name ends in `.gz`.

    Raises:
        ConfigError: unreadable, empty, broken gzip, or not UTF-8 text. Key `path`.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError("path", path, f"is not a whole gzip file ({error})") from None
    except OSError as error:
        raise ConfigError("path", path, f"cannot be read ({error.strerror})") from None
    if not data.strip():
        raise ConfigError("path", path, "is empty")
    if b"\0" in data[:65536]:
        raise ConfigError("path", path, "is not text (it holds zero bytes)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("path", path, f"is not UTF-8 text (byte {error.start})") from None


def fingerprint(paths: Sequence[Path], *settings: object) -> str:
    """A digest of names, sizes and times of change: reading gigabytes to find nothing new would be slow."""
    return digest(*settings, *(f"{p.resolve()} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths))


def label(path: Path, paths: Sequence[Path]) -> str:
    """A short name of a file, unique among `paths`: its place below their common folder."""
    if len(paths) == 1:
        return path.name
    parents = [one.parent for one in paths]
    common = parents[0]
    while any(not one.is_relative_to(common) for one in parents):
        common = common.parent
    return path.relative_to(common).as_posix()
