"""The first weights of a model.

An initialisation is called ``initialisation(model, generator, std=, n_layers=)`` and sets every parameter
and buffer. A new one says what the deviation of a matrix is and leaves the drawing to `draw`, which also does
what the model's parametrization wants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import nn

from llm.models.base import Initialized
from llm.models.parametrization.base import Scales


class Matrix(NamedTuple):
    """What a first deviation may depend on; of a model whose parametrization has a base, the base's.

    Attributes:
        fan_in: numbers that each output is made of.
        fan_out: outputs.
        is_table: looked up, not multiplied with.
        writes_stream: what it makes is added to the residual stream (``row`` in the model's plan).
    """

    fan_in: int
    fan_out: int
    is_table: bool
    writes_stream: bool


@runtime_checkable
class Initialisation(Protocol):
    """A `model.initialisation` component."""

    def __call__(self, model: nn.Module, generator: torch.Generator, *, std: float, n_layers: int) -> None:
        """Sets every parameter and buffer of `model`, drawing from `generator` alone.

        Args:
            model: all of it; it has a `parallel_plan`.
            generator: of all random numbers.
            std: the model's `init_std`.
            n_layers: blocks between the embeddings and the head.
        """
        ...


def gpt2(model: nn.Module, generator: torch.Generator, *, std: float, n_layers: int) -> None:
    """As GPT-2 does (Radford et al. 2019, section 2.3).

    Matrices and embeddings are normal with `std`; those that write into the stream are smaller by
    ``sqrt(2 * n_layers)``, so that the stream's variance does not grow with depth.
    """
    scaled = std / math.sqrt(2 * n_layers)
    draw(model, generator, lambda matrix: scaled if matrix.writes_stream else std)


def scaled(model: nn.Module, generator: torch.Generator, *, std: float, n_layers: int) -> None:
    """Each matrix by what it reads, so that what it makes has the variance of that.

    The deviation is ``1 / sqrt(fan_in)`` (LeCun et al. 1998, "Efficient BackProp", section 4.6), and smaller
    by ``sqrt(2 * n_layers)`` where the stream is written, as in GPT-2 and Megatron-LM. Embeddings, which read
    nothing, are normal with `std`.
    """
    depth = math.sqrt(2 * n_layers)

    def deviation(matrix: Matrix) -> float:
        if matrix.is_table:
            return std
        return 1 / math.sqrt(matrix.fan_in) / (depth if matrix.writes_stream else 1.0)

    draw(model, generator, deviation)


@torch.no_grad()
def draw(model: nn.Module, generator: torch.Generator, deviation: Callable[[Matrix], float]) -> None:
    """Sets every parameter and buffer: normal matrices and embeddings, biases of zero, what parts know.

    `deviation` is asked about the base's matrices where the model has a parametrization, which says how they
    go on from there (`llm.models.parametrization`). The numbers are drawn on the generator's device: the same
    on every device the model may be on.
    """
    published: Any = model
    plan: Mapping[str, str] = published.parallel_plan()
    scales: Scales = getattr(model, "scales", None) or Scales()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            weight = f"{name}.weight"
            shape = scales.base_shapes.get(weight, tuple(module.weight.shape))
            is_table = isinstance(module, nn.Embedding)
            matrix = Matrix(shape[1], shape[0], is_table, plan.get(name) == "row")
            drawn = torch.empty(module.weight.shape, device=generator.device)
            drawn.normal_(0.0, deviation(matrix) * scales.of(weight).std, generator=generator)
            module.weight.copy_(drawn)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
            continue
        if module is not model and isinstance(module, Initialized):
            module.init_weights(generator)
        for own, parameter in module.named_parameters(recurse=False):
            if (scale := scales.of(f"{name}.{own}").std) != 1.0:
                parameter.mul_(scale)
