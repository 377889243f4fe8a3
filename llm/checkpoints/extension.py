"""Longer contexts for trained models."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


def extended(
    recipe: Mapping[str, Any],
    old_seq_len: int,  # noqa: ARG001
    max_seq_len: int,  # noqa: ARG001
    scaling: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The model's config with another scaling of its rotary positions."""
    changed = copy.deepcopy(dict(recipe))
    changed["position"]["scaling"] = scaling
    return changed
