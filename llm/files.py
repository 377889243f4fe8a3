"""Files of our own: written whole or not at all, and the same bytes for the same content."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# ----------------------------------------------------------------------------- writing


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A name beside `path` to write to; it becomes `path` when the block ends well, and else is removed.

    So `path` is either the old file or the whole new one, also through a kill or a power cut. One that is not
    `durable` is written faster, and a power cut may leave it empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name carries the process, so that two writers never share a half-written file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if durable:
            sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes a whole file in UTF-8; see `replacing`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """`write_text` of readable JSON; see `plain` for NaN."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Makes a file's content, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ----------------------------------------------------------------------------- reading


def read_json(path: Path) -> Any:
    """What `write_json` wrote. Raises OSError or ValueError, for the caller knows what the file means."""
    return json.loads(path.read_text(encoding="utf-8"))


def cache_directory() -> Path:
    """Where what was fetched is kept between runs: ``$XDG_CACHE_HOME/llm-experiments``, or ``~/.cache``'s."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm-experiments"


# ----------------------------------------------------------------------------- content and its digest


def plain(value: object) -> Any:
    """`value` as what JSON can hold, keeping every bit of every finite float.

    JSON has no NaN and no infinity, and a reader in another language would refuse Python's bare ``NaN``, so
    these three become the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``; `number` reads them back.
    Sets become sorted lists, scalars of numpy and torch python numbers, and whatever is left its text.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(item) for item in value]
    if callable(item := getattr(value, "item", None)) and getattr(value, "ndim", 0) == 0:
        return plain(item())
    if callable(tolist := getattr(value, "tolist", None)):
        return plain(tolist())
    return str(value)


def number(value: object) -> object:
    """The inverse of `plain` for one value: the three strings for what JSON lacks become floats again."""
    return float(str(value)) if value in ("NaN", "Infinity", "-Infinity") else value


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal content gives equal text on every machine."""
    return json.dumps(
        plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: object) -> str:
    """sha256 of the canonical JSON of `value`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of the bytes of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
