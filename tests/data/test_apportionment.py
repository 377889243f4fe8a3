"""Turns dealt out by weight: one owner each, shares at every moment, and answers without a memory."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.data.apportionment import Apportionment

WEIGHTS = st.lists(
    st.one_of(st.integers(1, 1000), st.floats(1e-6, 1.0), st.just(0)), min_size=1, max_size=12
).filter(any)


def named(weights: list[float]) -> dict[str, float]:
    return {f"d{number:02}": weight for number, weight in enumerate(weights)}


@given(weights=WEIGHTS, start=st.integers(0, 10**12))
def test_every_turn_has_one_owner_who_counts_on(weights: list[float], start: int) -> None:
    deal = Apportionment(named(weights))
    had = deal.counts(start)
    assert sum(had.values()) == start
    for number in range(start, start + 40):
        name, before = deal.place(number)
        assert before == had[name]
        had[name] += 1
        assert deal.counts(number + 1) == had


@given(weights=WEIGHTS, n=st.integers(0, 10**9))
def test_no_domain_is_two_turns_away_from_its_share(weights: list[float], n: int) -> None:
    whole = sum(weights)
    counts = Apportionment(named(weights)).counts(n)
    for name, weight in named(weights).items():
        assert abs(counts.get(name, 0) - n * weight / whole) < 2
        assert (name in counts) == (weight > 0), "a weight of 0 has no turn at all"


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_whole_weights_come_out_exactly(sizes: list[int]) -> None:
    deal = Apportionment(named(sizes))
    turns = [deal.place(number) for number in range(sum(sizes))]
    assert sorted(turns) == sorted((name, k) for name, size in named(sizes).items() for k in range(int(size)))


def test_worked_by_hand() -> None:
    # b and c are joined first, and weigh as much as a. A half rounds up, so a begins, and b before c.
    deal = Apportionment({"a": 2, "b": 1, "c": 1})
    assert [deal.place(number)[0] for number in range(8)] == ["a", "b", "a", "c"] * 2


def test_only_proportions_matter() -> None:
    one, other = Apportionment({"a": 1, "b": 3}), Apportionment({"b": 0.75, "a": 0.25, "c": 0})
    assert [one.place(n) for n in range(50)] == [other.place(n) for n in range(50)]


@pytest.mark.parametrize("n_domains", [2, 22, 100])
def test_equal_weights_take_turns(n_domains: int) -> None:
    deal = Apportionment(named([1] * n_domains))
    first = Counter(deal.place(number)[0] for number in range(n_domains))
    assert set(first.values()) == {1}
    assert len(first) == n_domains
