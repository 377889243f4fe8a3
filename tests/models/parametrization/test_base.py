from __future__ import annotations

import pytest
import torch
from torch import nn

from llm.models.parametrization.base import Width, divisor_near, learning_rates
from llm.types import ConfigError
from tests.models.composition import load_part, small


def test_without_a_head_dim_heads_get_wider() -> None:
    narrow = Width(512, 8, 2, d_ff=1408).at(128)
    assert narrow == Width(128, 8, 2, d_ff=352)
    assert (Width(512, 8, 2).d_head, narrow.d_head) == (64, 16)


def test_with_a_head_dim_there_are_more_heads() -> None:
    assert Width(512, 8, 2, head_dim=64).at(1024) == Width(1024, 16, 4, head_dim=64)
    assert Width(512, 8, 2, head_dim=64).at(128) == Width(128, 2, 1, head_dim=64)  # never less than one
    assert Width(512, 8, 8, head_dim=64).at(320) == Width(320, 5, 5, head_dim=64)


@pytest.mark.parametrize(
    ("width", "d_model", "says"),
    [
        (Width(768, 12, 12), 128, "not divisible by n_heads=12; nearest: 120, 132"),
        (Width(512, 8, 2, head_dim=64), 96, "leaves 1.5 heads of head_dim=64; take a multiple of .*=64"),
        (Width(512, 8, 2, head_dim=64), 32, "leaves 0.5 heads"),
    ],
)  # fmt: skip
def test_a_width_that_leaves_no_whole_heads(width: Width, d_model: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        width.at(d_model, key="base_d_model")
    assert (raised.value.key, raised.value.value) == ("base_d_model", d_model)


@pytest.mark.parametrize(("total", "wanted", "found"), [(12, 5, 4), (7, 6.9, 1), (8, 8, 8), (6, 0.2, 1)])
def test_divisor_near(total: int, wanted: float, found: int) -> None:
    assert divisor_near(total, wanted) == found


def test_rates_of_a_model_inside_another_have_its_path() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = small("decoder", n_heads=4, parametrization=load_part("parametrization", "mup"))
            self.value = nn.Linear(48, 1)

    wrapped = Wrapper()
    rates, names = learning_rates(wrapped), dict(wrapped.named_parameters())
    assert set(rates) <= set(names)
    assert rates == {f"policy.{name}": rate for name, rate in wrapped.policy.learning_rates().items()}
    assert rates["policy.blocks.1.attention.qkv.weight"] == 128 / 48
    assert learning_rates(small("decoder")) == {}
    assert isinstance(names["value.weight"], torch.nn.Parameter)
