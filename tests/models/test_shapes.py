"""The shapes in signatures are held against every tensor while tests run (see tests/conftest.py)."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from llm.alignment.dpo import dpo_loss
from llm.generation.sampling import Settings, probabilities
from llm.models.cache import LayerCache
from llm.types import Batch
from tests.models.composition import ids, small


def test_a_wrong_number_of_dims() -> None:
    with pytest.raises(TypeCheckError, match="hidden"):
        small().head(torch.tensor(1.0))
    with pytest.raises(TypeCheckError, match="logits"):
        probabilities(torch.zeros(5), Settings())
    with pytest.raises(TypeCheckError, match="new"):
        LayerCache(4).append(torch.zeros(2, 3, 4))


def test_two_sizes_that_should_be_one() -> None:
    positions = torch.arange(5)[None]
    with pytest.raises(TypeCheckError, match="positions"):
        small().position.rotate(torch.zeros(1, 4, 6, 8), positions)
    one, two = torch.zeros(3), torch.zeros(2)
    with pytest.raises(TypeCheckError, match="rejected"):
        dpo_loss(one, two, one, two, beta=0.1)


def test_a_wrong_type_of_number() -> None:
    with pytest.raises(TypeCheckError, match="logits"):
        probabilities(torch.zeros(1, 5, dtype=torch.int64), Settings())
    with pytest.raises(TypeCheckError, match="positions"):
        small().position.rotate(torch.zeros(1, 4, 6, 8), torch.zeros(1, 4))


def test_a_wrong_shape_inside_a_part_is_caught_where_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    feed_forward = next(model.layers()).feed_forward
    monkeypatch.setattr(feed_forward, "down", torch.nn.Linear(feed_forward.down.in_features, 7))
    with pytest.raises(TypeCheckError, match="return"):
        model.hidden(Batch(ids(2, 5)))
