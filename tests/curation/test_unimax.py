"""UniMax against examples worked by hand and against water filled into vessels."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.curation.base import judge
from llm.curation.unimax import UniMaxMixture, unimax


def in_place(sizes: list[int], budget: float, max_epochs: float) -> list[float]:
    shares = unimax({(f"{i:02}",): size for i, size in enumerate(sizes)}, budget, max_epochs)
    return [shares[(f"{i:02}",)] for i in range(len(sizes))]


def test_worked_by_hand() -> None:
    # 120 among three is 40 each. The smallest may have 2 x 10 = 20; 100 among two is 50 each; 2 x 20 = 40 is
    # all the second may have; 60 are left for the third, which may have 200.
    assert in_place([20, 100, 10], 120, 2) == [40, 60, 20]
    # Enough of everything: even.
    assert in_place([50, 100, 90], 120, 1) == [40, 40, 40]
    # A budget nobody can spend: N epochs of all there is.
    assert in_place([5, 7], 1000, 3) == [15, 21]


@given(
    sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=20),
    share=st.floats(0.01, 3),
    max_epochs=st.integers(1, 10),
)
def test_it_is_the_level_at_which_the_budget_is_full(sizes: list[int], share: float, max_epochs: int) -> None:
    """Independent of the algorithm: the level L with sum of min(L, N c_l) = C, found by halving."""
    budget = share * sum(sizes)
    caps = np.array(sizes, dtype=np.float64) * max_epochs
    low, high = 0.0, float(caps.max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(caps, middle).sum() < budget else (low, middle)
    assert in_place(sizes, budget, max_epochs) == pytest.approx(list(np.minimum(caps, high)), rel=1e-6)


def test_a_scarce_language_is_repeated_so_often_and_no_more() -> None:
    frame = pl.DataFrame(
        {
            "id": [str(i) for i in range(1200)],
            "text": ["12345678"] * 1200,
            "language": ["en"] * 1000 + ["de"] * 180 + ["is"] * 20,
        }
    )
    judged = judge(UniMaxMixture(max_repeats=2), frame)
    copies = {language: judged.filter(language=language)["copies"].sum() for language in ("en", "de", "is")}
    assert copies == {"en": 800, "de": 360, "is": 40}
    assert judged.filter(language="en")["copies"].max() == 1
    half = judge(UniMaxMixture(max_repeats=2, budget_bytes=600 * 8), frame)
    assert half["copies"].sum() == 600
    assert half.filter(language="is")["copies"].to_list() == [2] * 20
