from __future__ import annotations

from itertools import combinations

import numpy as np

from llm.benchmarks.planted import plant, true_pairs
from llm.curation.near_duplicates import jaccard, shingles


def test_planted_pairs_have_the_similarities_wanted() -> None:
    planted = plant(400, seed=0)
    assert len(planted.texts) == 400
    assert 1500 < np.mean([len(text) for text in planted.texts]) < 2500
    near = list(true_pairs(planted.texts, 5, 0.8).values())
    hard = [one for one in true_pairs(planted.texts, 5, 0.55).values() if one < 0.8]
    assert (planted.n_near, planted.n_hard) == (40, 20)
    assert len(near) + len(hard) == 60, "and nothing else is alike"
    assert abs(len(near) - 40) <= 2
    assert abs(np.mean(near) - 0.9) < 0.04
    assert min(near) < 0.83
    assert max(near) > 0.97
    assert abs(np.mean(hard) - 0.7) < 0.04
    assert planted == plant(400, seed=0)
    assert planted != plant(400, seed=1)


def test_true_pairs_against_comparing_all() -> None:
    texts = plant(60, seed=2, n_words=2).texts
    sets = [shingles(text, 2) for text in texts]
    for threshold in (0.02, 0.6):
        plain = {
            (one, other): jaccard(sets[one], sets[other])
            for one, other in combinations(range(60), 2)
            if jaccard(sets[one], sets[other]) >= threshold
        }
        assert plain
        assert true_pairs(texts, 2, threshold) == plain
