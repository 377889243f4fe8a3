"""Temperature sampling against numpy and against what a paper's table says."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.curation.base import judge
from llm.curation.temperature import TemperatureMixture, power_shares
from llm.types import ConfigError

MC4 = {"en": (3067, 5.67), "ru": (756, 3.71), "es": (416, 3.09), "de": (397, 3.05), "fr": (333, 2.89)}
"""Millions of pages and per cent of the examples: Xue et al. 2021, table 6, whose alpha is 0.3."""


@given(
    sizes=st.lists(st.integers(1, 10**12), min_size=1, max_size=30), alpha=st.floats(0, 1, allow_nan=False)
)
def test_shares_against_numpy(sizes: list[int], alpha: float) -> None:
    found = power_shares({(str(i),): size for i, size in enumerate(sizes)}, alpha)
    logs = alpha * np.log(np.array(sizes, dtype=np.float64))
    want = np.exp(logs - logs.max())
    assert list(found.values()) == pytest.approx(list(want / want.sum()), rel=1e-9)


def test_worked_by_hand() -> None:
    # sizes 81, 16 and 1: their square roots are 9, 4 and 1
    found = power_shares({("a",): 81, ("b",): 16, ("c",): 1}, 0.5)
    assert found == pytest.approx({("a",): 9 / 14, ("b",): 4 / 14, ("c",): 1 / 14})


def test_mt5s_table() -> None:
    found = power_shares({(name,): pages for name, (pages, _) in MC4.items()}, 0.3)
    published = sum(share for _, share in MC4.values())
    for name, (_, share) in MC4.items():
        assert found[(name,)] == pytest.approx(share / published, rel=0.01), name


def test_a_temperature_is_the_inverse_of_alpha() -> None:
    frame = pl.DataFrame(
        {
            "id": [str(i) for i in range(850)],
            "text": ["12345678"] * 850,
            "language": ["en"] * 810 + ["de"] * 40,
        }
    )
    judged = judge(TemperatureMixture(alpha=None, temperature=2, max_repeats=9), frame)
    english = judged.filter(language="en")["copies"].sum()
    assert english / judged["copies"].sum() == pytest.approx(
        np.sqrt(810) / (np.sqrt(810) + np.sqrt(40)), abs=0.01
    )
    assert judged.equals(judge(TemperatureMixture(alpha=0.5, max_repeats=9), frame))


@given(
    sizes=st.lists(st.integers(1, 10**12), min_size=1, max_size=20),
    alpha=st.floats(0, 1, allow_nan=False),
    most=st.integers(2, 9),
)
def test_scarce_groups_are_capped_and_the_others_share_the_rest(
    sizes: list[int], alpha: float, most: int
) -> None:
    """Independent of the algorithm: the level L with sum of min(L q_l, N n_l) = sum of n_l, by halving."""
    n_bytes = {(f"{i:02}",): size for i, size in enumerate(sizes)}
    shares = np.array(list(power_shares(n_bytes, alpha).values()))
    caps = most * np.array(sizes, dtype=np.float64)
    low, high = 0.0, float((caps / shares).max())
    for _ in range(200):
        middle = (low + high) / 2
        full = np.minimum(middle * shares, caps).sum() >= sum(sizes)
        low, high = (low, middle) if full else (middle, high)
    found = TemperatureMixture(alpha, max_repeats=most).targets(n_bytes)
    assert list(found.values()) == pytest.approx(list(np.minimum(high * shares, caps)), rel=1e-6)


def test_a_tiny_group_does_not_shrink_the_corpus() -> None:
    # equal shares of 1,102: c may have 4 x 2 = 8, and the other 1,094 go to a and b in halves
    assert TemperatureMixture(alpha=0).targets({("a",): 900, ("b",): 200, ("c",): 2}) == pytest.approx(
        {("a",): 547, ("b",): 547, ("c",): 8}
    )
    n_bytes = {("de",): 10**11, ("en",): 10**12, ("unknown",): 2000}
    found = TemperatureMixture().targets(n_bytes)
    assert sum(found.values()) == pytest.approx(sum(n_bytes.values()))
    assert found[("unknown",)] == 8000
    assert found[("en",)] / found[("de",)] == pytest.approx(10**0.3)


@pytest.mark.parametrize(("alpha", "temperature"), [(None, None), (0.3, 5)])
def test_one_of_both(alpha: float | None, temperature: float | None) -> None:
    with pytest.raises(ConfigError) as caught:
        TemperatureMixture(alpha, temperature)
    assert caught.value.key == "temperature"
