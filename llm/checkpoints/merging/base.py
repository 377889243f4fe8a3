"""Several models' weights as one model's: what a merging method is, and what models must have in common.

A new method is one python file with a class of these two methods and one YAML file in ``conf/merging``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from llm.checkpoints.families.base import with_defaults
from llm.types import ConfigError

Weights = Mapping[str, Tensor]


@runtime_checkable
class Merging(Protocol):
    """A `merging` component."""

    def require(self, n_models: int, *, has_base: bool) -> None:
        """Refuses models it cannot merge.

        Raises:
            ConfigError: ``models``, ``base``, or one of its own parameters.
        """
        ...

    def merge(self, models: Sequence[Weights], base: Weights | None) -> Iterator[tuple[str, Tensor]]:
        """One merged tensor after the other, in the order and types of the first model.

        Args:
            models: tensors by name, the same names and shapes in each.
            base: what they were all fine-tuned from.
        """
        ...


def shares(weights: Sequence[float] | None, n_models: int, *, default: float = 1.0) -> list[float]:
    """One number a model; all `default` when none are given.

    Raises:
        ConfigError: as many as there are models are needed.
    """
    if weights is None:
        return [default] * n_models
    if len(weights) != n_models:
        raise ConfigError("weights", list(weights), f"there are {n_models} models: give as many weights")
    return [float(weight) for weight in weights]


def wide(tensor: Tensor) -> Tensor:
    """For arithmetic: at least float32."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def require_models(n_models: int, least: int, most: int | None = None) -> None:
    """Refuses too few models, or too many.

    Raises:
        ConfigError: ``models``.
    """
    if n_models < least or (most is not None and n_models > most):
        wanted = f"exactly {least}" if most == least else f"at least {least}"
        raise ConfigError("models", n_models, f"this method merges {wanted}; give models=[RUN_A,RUN_B]")


def require_base(*, has_base: bool, wanted: bool) -> None:
    """Refuses a missing base, and one that would mean nothing.

    Raises:
        ConfigError: ``base``.
    """
    if wanted and not has_base:
        mend = "this method adds up differences to the model they were all fine-tuned from"
        raise ConfigError("base", None, f"{mend}: give base=RUN")
    if has_base and not wanted:
        mend = "this method reads no base; leave it out, or take merging=ties or task_arithmetic"
        raise ConfigError("base", "given", mend)


def require_same_tensors(first: Weights, other: Weights, *, key: str, value: Any) -> None:
    """Refuses weights of another architecture.

    Raises:
        ConfigError: names the first tensor that differs.
    """
    for name, tensor in first.items():
        if name not in other:
            raise ConfigError(
                key, value, f"is of another architecture: it has no {name}, the first model has"
            )
        there, here = list(other[name].shape), list(tensor.shape)
        if there != here:
            mend = f"is of another architecture: {name} has shape {there}, in the first model {here}"
            raise ConfigError(key, value, mend)
    if extra := [name for name in other if name not in first]:
        raise ConfigError(
            key, value, f"is of another architecture: it has {extra[0]}, the first model has not"
        )


def require_same_recipe(first: Mapping[str, Any], other: Mapping[str, Any], *, key: str, value: Any) -> None:
    """Refuses a model that makes another function of the same tensors, as one with other heads.

    Raises:
        ConfigError: names the first config key that differs.
    """
    here, there = _flat(with_defaults(first)), _flat(with_defaults(other))
    for name in sorted({*here, *there}):
        mine, theirs = here.get(name), there.get(name)
        if mine != theirs and not TRAINING_ONLY & set(name.split(".")):
            mend = f"is of another architecture: its model.{name} is {theirs}, the first model's {mine}"
            raise ConfigError(key, value, mend)


TRAINING_ONLY = frozenset({"dropout", "init_std", "initialisation"})
"""Keys of a model's config that a trained model's function does not depend on."""


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping):
        return {k: v for key, one in node.items() for k, v in _flat(one, f"{path}.{key}".lstrip(".")).items()}
    return {path: node}
