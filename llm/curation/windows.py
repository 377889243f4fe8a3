"""Hashes of all windows of a text's bytes, and which of them stand for their neighbours.

A window is `length` bytes. Each picks an anchor, the least hash among its grams of `gram_bytes(length)`
bytes, leftmost on a tie (winnowing: Schleimer, Wilkerson and Aiken 2003). Equal windows pick equal anchors,
wherever they stand, so windows need to be compared only where anchors repeat; and neighbours mostly share
their anchor, so a whole span of windows is noted as one.

    bytes     a b c d e f g h i j k l m n
    windows   [-------)                       pick anchor "c d"
                [-------)                     pick anchor "c d"
                  [-------)                   pick anchor "c d"    -> one span of 3 windows
                    [-------)                 picks the next anchor
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

BATCH_BYTES = 1 << 15
"""Text hashed together: each byte takes some 60 while it is, and that should fit into a core's cache."""

MIN_LENGTH, MAX_LENGTH = 16, 16_384

Numbers = NDArray[np.uint64]

# odd constants with bits all over: the fractions of the golden ratio, e and pi
_GOLDEN, _E, _PI = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xB7E151628AED2A6B, 0x243F6A8885A308D3))
_LOW = np.uint64(0xFFFFFFFF)


def gram_bytes(length: int) -> int:
    """The largest power of two in half a window: longer grams repeat less, shorter ones need fewer notes."""
    return _power_of_two(length // 2)


@dataclass(frozen=True)
class Batch:
    """Stretches of documents end to end. `rows`, `offsets`: where each comes from; `sizes`: its bytes."""

    data: NDArray[np.uint8]
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


def batches(stretches: Iterable[tuple[int, int, bytes]], length: int) -> Iterator[Batch]:
    """Stretches (row, offset, bytes) in batches; long ones are cut so that each window is in one part."""
    held: list[tuple[int, int, bytes]] = []
    total = 0
    for row, offset, data in stretches:
        for start in range(0, len(data) - length + 1, BATCH_BYTES):
            part = data[start : start + BATCH_BYTES + length - 1]
            if total + len(part) > BATCH_BYTES + length and held:
                yield _batch(held)
                held, total = [], 0
            held.append((row, offset + start, part))
            total += len(part)
    if held:
        yield _batch(held)


def windows(batch: Batch, length: int) -> pl.DataFrame:
    """Every window: `row`, `start` (UInt32) and `window`, its hash."""
    width = gram_bytes(length)
    hashes = _window_hashes(_grams(batch.data, width), width, length)
    places = _places(batch, length)
    return _located(batch, places, {"window": hashes[places]})


def spans(batch: Batch, length: int) -> pl.DataFrame:
    """Runs of windows with one anchor: `row`, `start` of the first, `count`, hashes `anchor` and `span`.

    Inside a run of one and the same byte only some windows are noted; they cover what all of them do.
    """
    width = gram_bytes(length)
    grams = _grams(batch.data, width)
    picked_by = _anchors(grams, length - width + 1)
    hashes = _window_hashes(grams, width, length)
    places = _places(batch, length)
    places = places[_worth_noting(hashes, places, length)]
    picked = picked_by[places]
    changes = (picked[1:] != picked[:-1]) | (np.diff(places) != 1)
    begins = np.flatnonzero(np.r_[len(places) > 0, changes])
    counts = np.diff(np.r_[begins, len(places)])
    first, last = places[begins], places[begins + counts - 1]
    columns = {
        "count": counts.astype(np.uint16),
        "anchor": grams[picked[begins]],
        # the first and the last window overlap, so that together they hold every byte of the span
        "span": _mixed(hashes[first] * _PI + hashes[last] + counts.astype(np.uint64)),
    }
    return _located(batch, first, columns)


def _batch(held: list[tuple[int, int, bytes]]) -> Batch:
    rows, offsets, parts = zip(*held, strict=True)
    data = np.frombuffer(b"".join(parts), np.uint8)
    return Batch(data, np.array(rows), np.array(offsets), np.array([len(part) for part in parts]))


def _grams(data: NDArray[np.uint8], width: int) -> Numbers:
    """The hash of the `width` bytes (a power of two, 8 or more) from each place on."""
    grams = np.empty(len(data) - 7, np.uint64)
    for shift in range(8):
        whole = (len(data) - shift) // 8 * 8
        grams[shift::8] = data[shift : shift + whole].view("<u8")
    grams = _mixed(grams)
    reach = 8
    while reach < width:
        grams, reach = _doubled(grams, reach), 2 * reach
    return grams


def _doubled(grams: Numbers, width: int, apart: int | None = None) -> Numbers:
    """Hashes of two grams as one, the second `apart` bytes behind the first (`width` when None)."""
    apart = width if apart is None else apart
    both = grams[: len(grams) - apart] * _GOLDEN
    both += grams[apart:]
    return _mixed(both)


def _window_hashes(grams: Numbers, width: int, length: int) -> Numbers:
    """Two grams of double width hold a window, which is shorter than four times `width`, between them."""
    return _doubled(_doubled(grams, width), 2 * width, length - 2 * width)


def _mixed(numbers: Numbers) -> Numbers:
    """Spreads every bit over all, in place; without this, sums of products repeat for regular texts."""
    shifted = numbers >> np.uint64(32)
    numbers ^= shifted
    numbers *= _E
    np.right_shift(numbers, np.uint64(29), out=shifted)
    numbers ^= shifted
    return numbers


def _anchors(grams: Numbers, n_grams: int) -> NDArray[np.int64]:
    """For each window of `n_grams` grams, where the least of them is, leftmost on a tie."""
    # the place in the low half makes the minimum its own argument
    least = (grams & ~_LOW) | np.arange(len(grams), dtype=np.uint64)
    reach = 1
    while 2 * reach <= n_grams:
        least, reach = np.minimum(least[:-reach], least[reach:]), 2 * reach
    rest = n_grams - reach
    least = np.minimum(least[: len(least) - rest], least[rest:])
    places: NDArray[np.int64] = (least & _LOW).astype(np.int64)
    return places


def _places(batch: Batch, length: int) -> NDArray[np.int64]:
    """Where windows begin that lie within one stretch."""
    ends = np.cumsum(batch.sizes)
    inside = np.ones(len(batch.data) - length + 1, bool)
    for end in ends[:-1]:
        inside[max(0, end - length + 1) : end] = False
    return np.flatnonzero(inside)


def _worth_noting(hashes: Numbers, places: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """False inside a run of one byte, whose windows are all equal: one in `length` will do there.

    The first `length` of a run are noted singly, since overlapping windows do not repeat each other, and so
    is the last.
    """
    equal = (hashes[places[1:]] == hashes[places[:-1]]) & (np.diff(places) == 1)
    after, before = np.r_[False, equal], np.r_[equal, False]
    number = np.arange(len(places))
    run_begin = np.maximum.accumulate(np.where(after, 0, number))
    noted: NDArray[np.bool_] = ~(after & before) | (number - run_begin <= length) | (places % length == 0)
    return noted


def _located(batch: Batch, places: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> pl.DataFrame:
    """Columns with the document and the offset in it in front."""
    begins = np.r_[0, np.cumsum(batch.sizes)]
    stretch = np.searchsorted(begins, places, "right") - 1
    start = places - begins[stretch] + batch.offsets[stretch]
    rows = batch.rows[stretch].astype(np.uint32)
    return pl.DataFrame({"row": rows, "start": start.astype(np.uint32), **columns})


def _power_of_two(number: int) -> int:
    """The largest one that is not above `number`."""
    return 1 << (number.bit_length() - 1)
