"""How a model's first weights, learning rates and multipliers follow from its width.

A parametrization compares a model with its *base*: the same config at another width, whose initialisation
and learning rate are taken as they are. What is different at the model's own width follows from how much each
matrix has grown, and that is read off the shapes: no part has to know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, runtime_checkable

from torch import nn

from llm.types import ConfigError


@dataclass(frozen=True)
class Width:
    """The sizes of a model that grow with its width.

    Attributes:
        d_model: width of the residual stream.
        n_heads: query heads.
        n_kv_heads: key and value heads.
        head_dim: width of one head; None for ``d_model / n_heads``.
        d_ff: inner width of the feed-forward part; None for the part's own rule.
    """

    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int | None = None
    d_ff: int | None = None

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.head_dim or self.d_model // self.n_heads

    def at(self, d_model: int, *, key: str = "d_model") -> Width:
        """The same model at another width.

        A `d_ff` grows with it. Of the heads, what the config leaves open: without a `head_dim` there are as
        many, and wider ones; with one there are more of them.

        Args:
            d_model: the other width.
            key: the config key that it came from, for errors.

        Raises:
            ConfigError: there is no whole number of heads, or a head has no whole width.
        """
        if self.head_dim is None:
            if d_model % self.n_heads:
                near = max(d_model // self.n_heads, 1) * self.n_heads
                mend = f"is not divisible by n_heads={self.n_heads}; nearest: {near}, {near + self.n_heads}"
                raise ConfigError(key, d_model, mend)
            return self.flat(d_model)
        n_heads = self.n_heads * d_model / self.d_model
        if n_heads < 1 or n_heads % 1:
            mend = f"leaves {n_heads:.4g} heads of head_dim={self.head_dim}; take a multiple of"
            raise ConfigError(key, d_model, f"{mend} d_model/n_heads={self.d_model / self.n_heads:g}")
        n_kv_heads = divisor_near(int(n_heads), self.n_kv_heads * d_model / self.d_model)
        return replace(self.flat(d_model), n_heads=int(n_heads), n_kv_heads=n_kv_heads)

    def flat(self, d_model: int) -> Width:
        """The same heads at another width; a `d_ff` grows with it."""
        d_ff = self.d_ff and max(1, round(self.d_ff * d_model / self.d_model))
        return replace(self, d_model=d_model, d_ff=d_ff)


def divisor_near(total: int, wanted: float) -> int:
    """The largest divisor of `total` that is not above `wanted`, or 1."""
    return max(n for n in range(1, total + 1) if total % n == 0 and n <= max(wanted, 1.0))


class Scale(NamedTuple):
    """What multiplies a parameter's first standard deviation and its learning rate, as the base has them."""

    std: float = 1.0
    learning_rate: float = 1.0


@runtime_checkable
class Parametrization(Protocol):
    """What a `model.parametrization` makes when it is called with a model's `Width`.

    Attributes:
        base: the sizes at which nothing is different.
        logit_scale: multiplies the logits.
    """

    base: Width
    logit_scale: float

    def matrix(self, growth_in: float, growth_out: float) -> Scale:
        """What a matrix gets whose inputs and outputs are so many times those of the base's.

        Tables of embeddings, the matrix of the head (which has `logit_scale`), biases and gains have the
        base's values.
        """
        ...


@dataclass(frozen=True)
class Scales:
    """What a parametrization comes to in one model; empty where nothing is different.

    Attributes:
        logits: multiplies the logits.
        parameters: by name, those that are different.
        base_shapes: shapes of the base's parameters, by name.
    """

    logits: float = 1.0
    parameters: Mapping[str, Scale] = field(default_factory=dict)
    base_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def of(self, name: str) -> Scale:
        """Of one parameter."""
        return self.parameters.get(name, Scale())


def compare(
    model: nn.Module,
    make_base: Callable[[], nn.Module],
    rules: Parametrization,
    *,
    head: str = "unembedding.weight",
) -> Scales:
    """The scales of `model`, from its shapes and those of its base.

    Of a parameter with several dims the last one is what it reads and the one before what it writes, as in a
    Linear layer; more in front of these are so many matrices.

    Args:
        model: may be on the meta device.
        make_base: makes the same model with the sizes ``rules.base``.
        rules: what follows from the growth.
        head: name of the matrix that makes logits, in a model whose embeddings are not tied.

    Raises:
        ConfigError: there can be no model of the base's sizes.
    """
    try:
        base = make_base()
    except ConfigError as mistake:
        mend = f"there can be no model of that width, which the others are compared with: {mistake}"
        raise ConfigError("base_d_model", rules.base.d_model, mend) from mistake
    shapes = {name: tuple(parameter.shape) for name, parameter in base.named_parameters()}
    tables = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    scales: dict[str, Scale] = {}
    for name, parameter in model.named_parameters():
        assert parameter.ndim == len(shapes[name]), name
        if parameter.ndim >= 2 and name != head and name not in tables:
            growth_out, growth_in = (parameter.shape[dim] / shapes[name][dim] for dim in (-2, -1))
            scales[name] = rules.matrix(growth_in, growth_out)
    different = {name: scale for name, scale in scales.items() if scale != Scale()}
    return Scales(rules.logit_scale, different, shapes)


def learning_rates(model: nn.Module) -> dict[str, float]:
    """Multipliers of the learning rate that a model, or a model inside it, publishes; by parameter name."""
    found: dict[str, float] = {}
    for path, module in model.named_modules():
        published = getattr(module, "learning_rates", None)
        if callable(published):
            found |= {f"{path}.{name}".lstrip("."): rate for name, rate in published().items()}
    return found
