"""Three parts that share no text and have each label in like shares."""

from __future__ import annotations

import re

import polars as pl
import pytest

from llm.classifiers.splits import Split, split


def words(number: int) -> str:
    return "w" + "".join("abcdefghij"[int(digit)] for digit in str(number))


LINES = [f"{words(i)} says {words(i * 7)}" for i in range(1000)]
LABELS = [int(i % 4 == 0) for i in range(1000)]


def divided(lines: list[str], labels: list[int], only: list[bool] | None = None, seed: int = 0) -> Split:
    return split(pl.Series(lines), labels, only or [False] * len(lines), development=0.2, test=0.3, seed=seed)


def test_each_label_is_divided_alike():
    found = divided(LINES, LABELS)
    sizes = {name: getattr(found, name) for name in ("train", "development", "test")}
    assert [len(part) for part in sizes.values()] == [500, 200, 300]
    assert [sum(part.labels) for part in sizes.values()] == [125, 50, 75]
    everything = [line for part in sizes.values() for line in part.lines]
    assert sorted(everything) == sorted(LINES)


def test_the_place_depends_on_the_seed_and_not_on_the_order():
    once, other = divided(LINES, LABELS), divided(LINES, LABELS, seed=1)
    turned = divided(LINES[::-1], LABELS[::-1])
    assert once.test == divided(LINES, LABELS).test
    assert set(once.test.lines) == set(turned.test.lines)
    assert set(once.test.lines) != set(other.test.lines)


def test_what_says_the_same_is_there_once():
    again = [f"{line.upper()}!! 12" for line in LINES]
    found = divided(LINES + again, LABELS * 2)
    assert found.repeated == 1000
    seen = [re.sub(r"[^a-z]+", " ", line.lower()).strip()
            for part in (found.train, found.development, found.test) for line in part.lines]  # fmt: skip
    assert len(seen) == len(set(seen)) == 1000


def test_two_labels_for_one_text_teach_nothing():
    found = divided([*LINES, "same words", "Same, words", "", "7 7", "8 8"], [*LABELS, 0, 1, 0, 0, 1])
    assert found.contradicted == 2
    assert not [line for line in found.train.lines if "same" in line.lower()]
    assert len(found.train) + len(found.development) + len(found.test) == 1002, "numbers alone are texts, too"


@pytest.mark.parametrize("first", [True, False])
def test_training_only_is_never_measured_on_and_yields_to_what_is(first: bool):
    more = [f"{words(i)} only" for i in range(100)] + LINES[:10]
    lines, only = LINES + more, [False] * 1000 + [True] * 110
    labels = LABELS + [0] * 100 + LABELS[:10]
    if first:
        lines, only, labels = lines[::-1], only[::-1], labels[::-1]
    found = divided(lines, labels, only)
    assert found.repeated == 10
    assert len(found.test) == 300
    assert not [line for part in (found.test, found.development) for line in part.lines if "only" in line]
