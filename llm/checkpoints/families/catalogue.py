"""All families there are: the modules of this folder that have one."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from llm.checkpoints import families as folder
from llm.checkpoints.families.base import Family


@cache
def families() -> tuple[Family, ...]:
    """In the order of their modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    modules = [importlib.import_module(f"{folder.__name__}.{name}") for name in names if name != "catalogue"]
    return tuple(module.FAMILY for module in modules if hasattr(module, "FAMILY"))


def family_of(model_type: str) -> Family | None:
    """The family of a ``config.json``'s `model_type`."""
    return next((family for family in families() if family.model_type == model_type), None)
