"""The pictures of a classifier are drawn, whatever its scores are like."""

from __future__ import annotations

import numpy as np
import pytest

from llm.classifiers import measuring
from llm.reports.classifier import precision_recall_png, reliability_png


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (np.linspace(0, 1, 50), np.arange(50) % 3 > 0),
        (np.array([1.0] * 30 + [0.0] * 30), np.array([True] * 30 + [False] * 30)),  # without a mistake
        (np.array([0.5, 0.5]), np.array([True, False])),
    ],
)
def test_pictures(scores: np.ndarray, truth: np.ndarray):
    curve = measuring.precision_recall(scores, truth)
    for threshold in (0.0, 0.5, 2.0):
        assert precision_recall_png(curve, curve, threshold).startswith(b"\x89PNG")
    assert reliability_png(measuring.reliability(scores, truth)).startswith(b"\x89PNG")
