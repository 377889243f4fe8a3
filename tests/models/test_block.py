"""The block adds what its parts return, and drops it while training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llm.models.block import Block
from llm.types import Batch
from tests.models.composition import ids, small

WHERE = {"positions": torch.arange(5)[None], "mask": None}


class Constant(nn.Module):
    """A part that always returns the same number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        return torch.full_like(x, self.value)

    def parallel_plan(self) -> dict[str, str]:
        return {}

    def mixing_flops(self, context_tokens: float) -> float:
        return 0.0


def _block(mixed: float, fed: float, dropout: float) -> Block:
    return Block(
        attention=Constant(mixed),
        feed_forward=Constant(fed),
        norm=nn.Identity,
        dropout=dropout,
    )


def test_both_parts_are_added():
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(_block(1.0, 2.0, 0.5).eval()(x, **WHERE), x + 3)


@pytest.mark.parametrize(("mixed", "fed"), [(1.0, 0.0), (0.0, 1.0)])
def test_both_parts_are_dropped_and_the_stream_is_not(mixed: float, fed: float):
    x = torch.ones(200, 5, 8)
    added = _block(mixed, fed, 0.25).train()(x, **WHERE) - x
    kept = added > 0
    torch.testing.assert_close(added[kept], torch.full_like(added[kept], 4 / 3))
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_embeddings_are_dropped():
    model = small("gpt2", dropout=0.5).train()
    model.blocks, model.norm = nn.ModuleList(), nn.Identity()
    tokens = ids(4, 30)
    dropped, whole = model.hidden(Batch(tokens)), model.eval().hidden(Batch(tokens))
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.05)
