"""What stands between two linear layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Activation = Literal["gelu", "gelu_tanh", "relu", "relu_squared", "silu"]


def relu_squared(x: Tensor) -> Tensor:
    """The square of the positive part (So et al. 2021, "Primer", section 4)."""
    return F.relu(x).square()


ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # with the exact error function: Hendrycks, Gimpel 2016, section 2
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # as in the released GPT-2
    "relu": F.relu,
    "relu_squared": relu_squared,
    "silu": F.silu,  # also called swish
}
