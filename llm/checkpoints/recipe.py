"""A component back to the config it was built from, so that a checkpoint can be built without its run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

ADAPTED = "llm.models.adapters.base.adapted"


def recipe_of(component: Any) -> Any:
    """The config node of a partial component (``model`` as a task receives it), its parts included.

    Raises:
        TypeError: one of its arguments is neither a plain value nor such a partial.
    """
    if isinstance(component, functools.partial):
        if component.args:
            raise TypeError(f"{component}: arguments must have names to be written down")
        function = component.func
        node = {"_target_": f"{function.__module__}.{function.__qualname__}", "_partial_": True}
        return node | {name: recipe_of(value) for name, value in component.keywords.items()}
    if isinstance(component, Mapping):
        return {str(name): recipe_of(value) for name, value in component.items()}
    if isinstance(component, (list, tuple)):
        return [recipe_of(value) for value in component]
    if component is None or isinstance(component, (bool, int, float, str)):
        return component
    raise TypeError(f"{component!r} cannot be written down as a config")


def with_adapter(recipe: Mapping[str, Any], adapter: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model with an adapter, from those of both.

    An adapter `recipe` already has is left out: a new one is put on a model that earlier ones have become
    part of (`llm.models.adapters.targets.frozen`).
    """
    return {"_target_": ADAPTED, "_partial_": True, "base": plain(recipe), "adapter": dict(adapter)}


def plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the model under an adapter, whose weights `llm.models.adapters.merge.merged` makes."""
    while recipe.get("_target_") == ADAPTED:
        recipe = recipe["base"]
    return dict(recipe)
