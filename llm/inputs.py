"""A user's files: text and JSON lines, read whole and checked, with errors that say where."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llm.files import sha256_file
from llm.types import ConfigError


def read_text(path: str | Path, *, key: str) -> str:
    """The text in a UTF-8 file, uncompressed first when its name ends in ``.gz``.

    Raises:
        ConfigError: for `key`, when it is missing, empty, damaged or not text; with the byte where it stops
            being text.
    """
    raw = _read_bytes(path, key)
    if not raw or raw.isspace():
        raise ConfigError(key, path, "the file is empty")
    nul = raw.find(b"\0")
    if nul >= 0:
        raise ConfigError(key, path, f"not a text file: byte {nul:,} is NUL; give plain UTF-8 text")
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        mend = (
            f"not UTF-8 text: byte {error.start:,} is 0x{raw[error.start]:02x} ({error.reason}); convert it"
        )
        raise ConfigError(key, path, mend) from error


class Place(NamedTuple):
    """Where a row of a user's file stands, for telling what is wrong with it."""

    key: str
    path: str
    line: int

    def wrong(self, mend: str) -> ConfigError:
        """The error to raise: the config's key and value as they are, the line in the message."""
        return ConfigError(self.key, self.path, f"line {self.line}: {mend}")


def read_jsonl(paths: Sequence[str], *, key: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The JSON objects of files of one object a line, each with its place.

    Raises:
        ConfigError: for `key`, as `read_text` does, for the first line that is no JSON object, and when there
            is no row at all.
    """
    empty = True
    for path in paths:
        # Not splitlines: JSON strings may hold U+2028 and its like unescaped.
        for number, line in enumerate(read_text(path, key=key).split("\n"), start=1):
            if not line.strip():
                continue
            empty, place = False, Place(key, path, number)
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise place.wrong(f"not valid JSON ({error}); give one object a line") from error
            if not isinstance(row, dict):
                raise place.wrong(f"a JSON object is needed, this is a {type(row).__name__}")
            yield place, row
    if empty:
        raise ConfigError(key, ", ".join(paths), "has no rows")


def check_weights(weights: Mapping[str, object], key: str, names: Iterable[str] | None = None) -> None:
    """Refuses weights that are no numbers from 0, or all 0, or of others than `names`.

    Raises:
        ConfigError: under `key`.
    """
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise ConfigError(f"{key}.{name}", weight, "must be a number, 0 or more")
        if names is not None and name not in names:
            raise ConfigError(
                f"{key}.{name}", weight, f"there is none of this name; there are {', '.join(names)}"
            )
    for name in names or ():
        if name not in weights:
            raise ConfigError(key, dict(weights), f"lacks {name}; give it one (0 leaves it out)")
    if not any(weights.values()):
        raise ConfigError(key, dict(weights), "needs at least one above 0")


class Weights(NamedTuple):
    """What a weights file says.

    weights: share of each domain, summing to 1. bytes_per_token: of each domain, None when it does not say.
    """

    weights: dict[str, float]
    bytes_per_token: dict[str, float] | None


def read_weights(path: str | Path, *, key: str) -> Weights:
    """The weights by domain in a JSON file, ``{"weights": {NAME: number}, ...}``, as task=doremi leaves it.

    Raises:
        ConfigError: for `key`, as `read_text` does, and when it holds no such weights.
    """
    text = read_text(path, key=key)
    try:
        content = json.loads(text)
        weights = {str(name): float(weight) for name, weight in content["weights"].items()}
        widths = content.get("bytes_per_token")
        found = None if widths is None else {name: float(widths[name]) for name in weights}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(key, path, 'no weights file: {"weights": {NAME: number, ...}} is needed') from error
    numbers = [*weights.values(), *(found or {}).values()]
    if not all(math.isfinite(one) and one >= 0 for one in numbers) or not sum(weights.values()):
        raise ConfigError(key, path, "its weights must be numbers from 0, and not all 0")
    whole = sum(weights.values())
    return Weights({name: weight / whole for name, weight in weights.items()}, found)


def digest(paths: Sequence[str | Path], *, key: str) -> str:
    """One sha256 of the bytes of all the files, in order."""
    digests = []
    for path in paths:
        try:
            digests.append(sha256_file(Path(path).expanduser()))
        except OSError as error:
            raise ConfigError(key, path, _reason(error)) from error
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _read_bytes(path: str | Path, key: str) -> bytes:
    file = Path(path).expanduser()
    try:
        raw = file.read_bytes()
        return gzip.decompress(raw) if file.suffix == ".gz" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError(key, path, "damaged, or not gzip as its name says") from error
    except OSError as error:
        raise ConfigError(key, path, _reason(error)) from error


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file; a relative path starts at the directory you run from"
    if isinstance(error, IsADirectoryError):
        return "this is a directory; give a file in it"
    return f"cannot be read ({error.strerror or error})"
