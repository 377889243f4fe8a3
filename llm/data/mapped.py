"""Packed tokens opened: one file or many shards, mapped into memory and checked against their sidecar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from llm.data.packing import COUNTS, IDX_DTYPE, Ids, PackedInfo, digest_of_shards, id_dtype, with_ending
from llm.files import read_json, sha256_file
from llm.types import ConfigError

AGAIN = "run task=tokenize again"


class ShardedTokens:
    """Ids in several places, read as one row of them: its length, any slice, any array of places.

    Args:
        parts: in order; at least one.
    """

    def __init__(self, parts: Sequence[Ids]) -> None:
        self._parts = parts
        self._edges = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return int(self._edges[-1])

    def __getitem__(self, place: slice | NDArray[np.integer]) -> Ids:
        if not isinstance(place, slice):
            return self._at(place)
        start, stop, step = place.indices(len(self))
        assert step == 1, "windows are read as they stand"
        found: list[Ids] = []
        number = int(np.searchsorted(self._edges, start, side="right")) - 1
        while start < stop:
            base, end = int(self._edges[number]), int(self._edges[number + 1])
            found.append(self._parts[number][start - base : min(stop, end) - base])
            start, number = min(stop, end), number + 1
        if not found:
            return self._parts[0][:0]
        if len(found) == 1:
            return found[0]
        return cast(Ids, np.concatenate(found))

    def _at(self, places: NDArray[np.integer]) -> Ids:
        numbers = np.searchsorted(self._edges, places, side="right") - 1
        found: Ids = np.empty(places.shape, self.dtype)
        for number in np.unique(numbers):
            here = numbers == number
            found[here] = self._parts[number][places[here] - self._edges[number]]
        return found


Tokens = Ids | ShardedTokens
"""Of a whole corpus: mapped files, or an array in memory."""


def open_packed(stem: Path, *, key: str = "path", verify: bool = True) -> tuple[Tokens, PackedInfo]:
    """The tokens that `llm.data.packing` or `llm.data.shards` wrote, mapped into memory.

    Args:
        stem: the files' path without its ending.
        key: the config key to name in errors.
        verify: also compare the sha256 (about a second a gigabyte); sizes are always compared.

    Raises:
        ConfigError: when a file is missing, cut short, or not what its sidecar says.
    """
    info, shards = read_info(with_ending(stem, ".json"), key)
    if info.n_tokens < 2:
        mend = f"{info.n_tokens} tokens; at least 2 are needed to predict one from another"
        raise ConfigError(key, with_ending(stem, ".bin"), mend)
    if not shards:
        return _mapped(stem, info.dtype, info.n_tokens, verify and info.sha256, key), info
    parts = [
        _mapped(stem.parent / one["file"], info.dtype, one["n_tokens"], verify and one["sha256"], key)
        for one in shards
    ]
    return ShardedTokens(parts), info


def _mapped(stem: Path, dtype: str, n_tokens: int, sha256: str | bool, key: str) -> Ids:
    file, ids = with_ending(stem, ".bin"), np.dtype(dtype).newbyteorder("<")
    try:
        size = file.stat().st_size
    except OSError as error:
        raise ConfigError(key, file, f"cannot be read ({error.strerror}); {AGAIN}") from error
    if size != n_tokens * ids.itemsize:
        mend = f"{size} bytes, but its .json says {n_tokens * ids.itemsize}; {AGAIN}"
        raise ConfigError(key, file, mend)
    if sha256 and sha256_file(file) != sha256:
        raise ConfigError(key, file, f"damaged: its sha256 is not the one in its .json; {AGAIN}")
    if not n_tokens:  # an empty file cannot be mapped
        return np.empty(0, ids)
    return np.memmap(file, dtype=ids, mode="r")


def document_bounds(stem: Path, *, key: str = "path") -> NDArray[np.int64] | None:
    """Where each document begins in the tokens, and the end of the last; None where no index was written.

    Raises:
        ConfigError: an index is not one of these tokens.
    """
    info, shards = read_info(with_ending(stem, ".json"), key)
    stems = [(stem.parent / shard["file"], shard["n_tokens"]) for shard in shards] or [(stem, info.n_tokens)]
    found, before = [np.zeros(1, np.int64)], 0
    for one, n_tokens in stems:
        file = with_ending(one, ".idx")
        if not file.is_file():
            return None
        bounds = np.fromfile(file, IDX_DTYPE).astype(np.int64)
        if not len(bounds) or bounds[0] or bounds[-1] != n_tokens or (np.diff(bounds) <= 0).any():
            raise ConfigError(key, file, f"damaged: not the index of the tokens beside it; {AGAIN}")
        found.append(bounds[1:] + before)
        before += n_tokens
    together = np.concatenate(found)
    if len(together) != info.n_documents + 1:
        mend = f"damaged: its .json says {info.n_documents} documents; {AGAIN}"
        raise ConfigError(key, with_ending(stem, ".idx"), mend)
    return together


def read_info(file: Path, key: str) -> tuple[PackedInfo, Sequence[Mapping[str, Any]]]:
    """What a sidecar says of the whole, and of each shard where there are several.

    Raises:
        ConfigError: it is missing or damaged.
    """
    try:
        content = read_json(file)
        shards = content.pop("shards", [])
        info = PackedInfo(**content)
        listed = all(
            isinstance(shard["file"], str) and isinstance(shard["n_tokens"], int) for shard in shards
        )
        sums = {name: sum(shard[name] for shard in shards) for name in COUNTS} if shards else {}
    except OSError as error:
        mend = f"cannot be read ({error.strerror}); give the output directory of task=tokenize"
        raise ConfigError(key, file, mend) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(key, file, f"damaged, not the sidecar of packed tokens; {AGAIN}") from error
    if info.dtype not in ("uint16", "uint32") or info.dtype != id_dtype(info.vocab_size).name:
        raise ConfigError(key, file, f"damaged, ids of type {info.dtype!r}; {AGAIN}")
    whole = not shards or info.sha256 == digest_of_shards([shard["sha256"] for shard in shards])
    if not (listed and whole and all(getattr(info, name) == total for name, total in sums.items())):
        raise ConfigError(key, file, f"damaged: its shards do not add up to the whole; {AGAIN}")
    return info, shards
