"""All families there are: the modules of this folder that have one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from llm.checkpoints import families as folder
from llm.checkpoints.families.base import Family


@cache
def families() -> tuple[Family, ...]:
    """In the order of their modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
    modules = [importlib.import_module(f"{folder.__name__}.{name}") for name in names if name != "catalogue"]
    return tuple(module.FAMILY for module in modules if hasattr(module, "FAMILY"))


def family_of(model_type: str, theirs: Mapping[str, Any] = MappingProxyType({})) -> Family | None:
    """The family of a ``config.json``'s `model_type`.

    Args:
        model_type: theirs.
        theirs: the whole config, for an architecture with several versions: the first whose constants agree.
    """
    found = [family for family in families() if family.model_type == model_type]
    agreeing = (f for f in found if all(theirs.get(name, value) == value for name, value in f.constants.items()))
    return next(agreeing, found[0] if found else None)
