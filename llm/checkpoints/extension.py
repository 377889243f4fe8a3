"""Longer contexts for trained models: the config of the same weights with other rotary frequencies.

    python main.py task=pretrain model=pretrained model.path=RUN data.seq_len=512 \\
        model.max_seq_len=512 model/scaling=yarn trainer.max_steps=100

The scalings (`llm.models.rope_scaling`) move the frequencies to where the model knows them; a short training
at the new length does the rest (Chen et al. 2023, arXiv 2306.15595, section 3.1: 1,000 steps; Peng et al.
2023, arXiv 2309.00071, section 4.1: 400).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from llm.checkpoints.recipe import ADAPTED
from llm.config import find
from llm.models.positions import LearnedPosition, RotaryPosition
from llm.types import ConfigError


def extended(
    recipe: Mapping[str, Any],
    old_seq_len: int,
    max_seq_len: int,
    scaling: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A model's config for sequences of another length.

    Args:
        recipe: the model's config node, with an adapter or without.
        old_seq_len: longest sequence it was trained with, in tokens.
        max_seq_len: the new one.
        scaling: config node of one of `llm.models.rope_scaling`; its ``factor`` and ``original_seq_len`` are
            filled in where they are None. None leaves the frequencies as they are: enough for positions
            without a longest one (ALiBi, none), and for rotary ones the start of worse predictions beyond
            the old length.

    Returns:
        The config of the same weights; `recipe` is not changed.

    Raises:
        ConfigError: ``max_seq_len``: the model has a learned vector for each place, or the scaling is for a
            longer context than this. ``scaling``: there are no frequencies to scale.
    """
    if recipe.get("_target_") == ADAPTED:
        return {**recipe, "base": extended(recipe["base"], old_seq_len, max_seq_len, scaling)}
    position = dict(recipe.get("position") or {})
    kind: Any = find(position["_target_"]) if "_target_" in position else type(None)
    if issubclass(kind, LearnedPosition) and max_seq_len != old_seq_len:
        mend = f"the model has learned a vector for each of {old_seq_len} places and has none for others"
        raise ConfigError("max_seq_len", max_seq_len, f"{mend}: leave it out, or train a model anew")
    if scaling is None:
        return dict(recipe)
    if not issubclass(kind, RotaryPosition):
        mend = f"only rotary positions have frequencies to scale, this model's are {kind.__name__}"
        raise ConfigError("scaling", _name(scaling), f"{mend}; leave model/scaling out")
    old = position.get("scaling")
    position["scaling"] = _filled(scaling, _original(old, old_seq_len), max_seq_len)
    return {**recipe, "position": position}


def _filled(scaling: Mapping[str, Any], original: int, max_seq_len: int) -> dict[str, Any]:
    """The scaling with what follows from the lengths."""
    filled = dict(scaling)
    known = inspect.signature(find(scaling["_target_"])).parameters
    if "original_seq_len" in known and filled.get("original_seq_len") is None:
        filled["original_seq_len"] = original
    original = filled.get("original_seq_len", original)
    if "factor" in known and filled.get("factor") is None and known["factor"].default is None:
        filled["factor"] = max_seq_len / original
        if max_seq_len <= original:
            mend = f"model/scaling={_name(scaling)} is for contexts longer than the {original} tokens"
            raise ConfigError(
                "max_seq_len", max_seq_len, f"{mend} the model was first trained with: give more"
            )
    return filled


def _original(scaling: Mapping[str, Any] | None, old_seq_len: int) -> int:
    """What the unscaled frequencies were trained with: the new scaling takes the place of an earlier one."""
    if scaling is None:
        return old_seq_len
    if scaling.get("original_seq_len"):
        return int(scaling["original_seq_len"])
    return round(old_seq_len / (scaling.get("factor") or 1))


def _name(scaling: Mapping[str, Any]) -> str:
    return str(scaling["_target_"]).rpartition(".")[2]
